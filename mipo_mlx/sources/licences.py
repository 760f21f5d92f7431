"""Files that are no notes: licences, read-me files and lists of changes of programs, folders of code, lists of single words."""

import re
from pathlib import Path, PurePath

from .note import NotANote

NAMES = re.compile(
    r"(?:un)?licen[sc]e(?:[-._ ].*)?|copying(?:\.lesser)?|copyright|readme(?:[-._].*)?|read[-_ ]me|lies ?mich"
    r"|lisez[-_ ]?moi|leeme|contributing"
    r"|code[-_ ]of[-_ ]conduct|change[-_ ]?log|third[-_]party.*"
    r"|impressum|imprint|datenschutz(?:erklärung|erklaerung|hinweise?)|haftungsausschluss|nutzungsbedingungen|widerrufsbelehrung"
    r"|(?:privacy|cookie)[-_ ](?:policy|notice|statement)|terms[-_ ](?:of|and|&)[-_ ](?:use|service|conditions)|legal[-_ ]notice"
    r"|mentions[-_ ]l[ée]gales|aviso[-_ ]legal|note[-_ ]legali"
    r"|(?:politique|pol[ií]tica|informativa)[-_ ](?:de|di|sulla)[-_ ](?:confidentialité|privacidade?|privacy|cookies)",
    re.IGNORECASE,
)
SHOUTED = {"CHANGES", "HISTORY", "AUTHORS", "MAINTAINERS", "SECURITY", "INSTALL", "NOTICE", "ATTRIBUTION"}  # "History" is a note
INSTRUCTIONS = {"AGENTS", "CLAUDE", "GEMINI", "SKILL", "copilot-instructions"}  # files that programs of assistants read
WORDS = re.compile(
    r"permission is hereby granted, free of charge|gnu (?:lesser |affero )?general public license|apache license,? "
    r"version|mozilla public license"
    r"|redistribution and use in source and binary forms|creative commons .{0,60}(?:public license|legal code)|boost "
    r"software license"
    r"|the software is provided [\"“]as is[\"”]|this is free and unencumbered software|end[- ]user licen[sc]e "
    r"agreement|eclipse public license"
    r"|sil open font license|terms and conditions for use, reproduction, and distribution",
    re.IGNORECASE,
)
SIGNS = ("license", "licence", "hereby granted", "creative", "provided", "unencumbered", "redistribution")  # each of WORDS has one
LOOKED_AT = 4_000  # characters
CODE = (
    "pyproject.toml",
    "setup.py",
    "package.json",
    "Cargo.toml",
    "go.mod",
    "pom.xml",
    "build.gradle",
    "Makefile",
    "CMakeLists.txt",
    "Gemfile",
)
WHY = "licences and read-me files"
LINES, WORD = 20_000, 8  # filled lines of a text, and characters of their average, up to which it is a list of words or numbers


def is_of_a_package(path: PurePath) -> bool:
    """Whether a file's name is that of a licence, a read-me file or another text that comes with a program."""
    return bool(NAMES.fullmatch(path.stem)) or path.stem in SHOUTED | INSTRUCTIONS


def refuse_licence(text: str) -> None:
    """Raise NotANote for the text of a licence: two of a licence's phrases, or one near the beginning."""
    lower = text[:LOOKED_AT].lower()
    if not any(sign in lower for sign in SIGNS):
        return
    beginning = re.sub(r"[\s*#>/]+", " ", text[:LOOKED_AT])
    phrases = {match[0].lower() for match in WORDS.finditer(beginning)}
    if len(phrases) >= 2 or phrases and WORDS.search(beginning[:400]):
        raise NotANote(WHY)


def refuse_list(text: str) -> None:
    """Raise NotANote for a very long text of very short lines: nobody's sentences, and each line would be a paragraph."""
    if text.count("\n") >= LINES:
        filled = [length for line in text.split("\n") if (length := len(line.strip()))]
        if len(filled) >= LINES and sum(filled) < WORD * len(filled):
            raise NotANote("long lists of words or numbers")


def code_in(folder: Path) -> str | None:
    """The name of the file that shows a folder to be a repository of code; None for a folder of notes."""
    if not (folder / ".git").exists():
        return None
    return next((name for name in CODE if (folder / name).is_file()), None)
