"""What a vault's own settings leave out: files that Obsidian excludes, folders of templates and plug-ins; Logseq, Foam."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ..errors import UserError
from .choice import BY_VAULT, Rule, rule
from .decode import nfc
from .note import Tally
from .patterns import PATIENCE, OfVault, Patience, Pattern, compiled

SETTING = 4 << 20  # bytes of a file of settings that are read
Text = Callable[[str], str | None]  # the text of a file, named from the vault's folder; None where there is none

# File of Obsidian's settings, the way to a key in it, and whether the key names a folder or a note.
OBSIDIAN = (
    ("templates.json", "folder", True),
    ("plugins/templater-obsidian/data.json", "templates_folder", True),
    ("plugins/quickadd/data.json", "templateFolderPath", True),
    ("plugins/copilot/data.json", "customPromptsFolder", True),
    ("plugins/copilot/data.json", "userSystemPromptsFolder", True),
    ("plugins/obsidian-textgenerator-plugin/data.json", "promptsPath", True),
    ("plugins/readwise-official/data.json", "readwiseDir", True),
    ("plugins/obsidian-kindle-plugin/data.json", "settings.highlightsFolder", True),
    ("plugins/obsidian-omnivore/data.json", "folder", True),
    ("daily-notes.json", "template", False),
    ("zk-prefixer.json", "template", False),
    ("plugins/periodic-notes/data.json", "daily.template", False),
    ("plugins/periodic-notes/data.json", "weekly.template", False),
    ("plugins/periodic-notes/data.json", "monthly.template", False),
)
LOGSEQ = re.compile(r":hidden\s*\[([^\[\]]*)\]")
LOGSEQ_FOLDERS = re.compile(r":(?:pages|journals)-directory\s+\"([^\"]+)\"")


def rules_of(text: Text, beneath: str, tally: Tally) -> list[Rule]:
    """The rules of a vault. `beneath`: its folder, seen from the notes folder, with a slash behind it; '' for the notes folder.

    `tally` names a filter that nobody understands. All patterns together have so much time (`patterns`) before files are skipped.
    """
    rules, patience = list(_rules_of(text, tally, f"{beneath}.obsidian/app.json")), Patience(PATIENCE)
    return [replace(one, path=OfVault(nfc(beneath), one.path, patience)) if one.path else one for one in rules]


def _rules_of(text: Text, tally: Tally, settings: str) -> Iterator[Rule]:
    attachments = _at(_json(text, ".obsidian/app.json"), "attachmentFolderPath")
    for ignored in _strings(_at(_json(text, ".obsidian/app.json"), "userIgnoreFilters")):
        try:
            yield Rule(BY_VAULT, _ignored(ignored))
        except ValueError as reason:
            tally.skip(settings, f"its filter {ignored[:60]} is {reason}, and leaves nothing out; write one into sources.exclude")
    for name in _names(text, attachments):
        try:
            yield rule(name, BY_VAULT)
        except UserError as reason:
            tally.skip(settings, str(reason))


def _names(text: Text, attachments: Any) -> Iterator[str]:
    """The patterns of the folders and notes that settings name."""
    if isinstance(attachments, str) and re.search(r"\w", attachments):  # "/" and "./" put attachments beside the notes
        anchored = attachments.startswith("./")
        yield f"{'' if anchored else '/'}{attachments.removeprefix('./').strip('/')}/"
    for file, way, folder in OBSIDIAN:
        name = _at(_json(text, f".obsidian/{file}"), way)
        if isinstance(name, str) and name.strip("/ "):
            path = f"/{name.strip('/ ')}"
            yield f"{path}/" if folder else path if path.endswith(".md") else f"{path}.md"
    edn = re.sub(r";.*", "", text("logseq/config.edn") or "")
    for hidden in LOGSEQ.findall(edn):
        yield from (f"/{name.strip('/')}" for name in re.findall(r"\"([^\"]+)\"", hidden) if name.strip("/."))
    foam = _json(text, ".vscode/settings.json")
    for name in _strings(foam.get("foam.files.ignore")) if isinstance(foam, dict) else []:
        yield re.sub(r"/\*\*?/\*$|/\*\*?$", "/", name)


def logseq_folders(config: str) -> tuple[str, ...]:
    """The names of the folders of a Logseq graph's pages and journals, by its config.edn."""
    return ("pages", "journals", *LOGSEQ_FOLDERS.findall(re.sub(r";.*", "", config)))


def _ignored(text: str) -> Pattern:
    """A line of Obsidian's list of excluded files: a regular expression between slashes, or the beginning of a path.

    Raises ValueError for a pattern that nobody understands.
    """
    inside = re.fullmatch(r"/(.+)/", text, re.DOTALL)
    return compiled(inside[1]) if inside else re.compile(f"^{re.escape(nfc(text))}", re.IGNORECASE)


def _json(text: Text, name: str) -> Any:
    try:
        return json.loads(re.sub(r"^[ \t]*//.*$", "", text(name) or "{}", flags=re.MULTILINE))
    except (ValueError, RecursionError):
        return {}


def _at(values: Any, way: str) -> Any:
    for key in way.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _strings(values: Any) -> list[str]:
    return [value for value in values if isinstance(value, str) and value.strip()] if isinstance(values, list) else []
