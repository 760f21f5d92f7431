"""Which notes are read: the recipe's `sources.include` and `sources.exclude`, the vault's own settings, and common names.

A pattern is one of
    Archive/            a folder of this name anywhere; with a slash within (Work/Old/), seen from the notes folder
    *.excalidraw.md     a file's name, with * and ?; ** stands for any folders
    #private            notes with this tag, in the text or in the front matter; tags beneath it count too
    draft: true         notes whose front matter has this key with this value; without a value (draft:), with the key
With ! in front, an exclude takes back what an earlier one, a vault's settings or a common name left out.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UserError
from ..recipe import Sources
from .decode import nfc
from .patterns import LONGEST, Linear, Pattern

# Folders whose text is not its owner's, or no longer meant. `!Archive/` among the excludes takes one back.
NAMES = (
    "Template Templates _templates Vorlage Vorlagen Plantillas Modèles Modelli Modelos Sjablonen Szablony Шаблоны 模板 "
    "テンプレート Archive Archives Archiv _archive Archivo Archivio Arquivo Arquivos Archiwum Архив 归档 存档 アーカイブ "
    "Clippings Clipping Web-Clips Web-Clippings Web-Clipper Excerpts Ausschnitte Recortes Ritagli Вырезки 剪藏 网页剪藏 摘录 "
    "クリップ Readwise Omnivore Instapaper Pocket Raindrop Highlights Kindle Zotero Snipd "
    "copilot-custom-prompts archetypes node_modules site-packages venv"
).split()
FEW = 2  # wildcards of a pattern
BY_NAME, BY_VAULT = "in folders such as Templates, Archive or Clippings", "excluded by the vault's settings"
BY_RECIPE, NOT_INCLUDED = "excluded by sources.exclude", "not named by sources.include"


@dataclass(frozen=True)
class Rule:
    """One pattern: of a path, or of a label (#tag, key, key: value)."""

    why: str
    path: Pattern | None = None
    label: str | None = None
    back: bool = False  # takes back what an earlier rule left out

    def holds(self, name: str, labels: Iterable[str] | None) -> bool:
        """Whether it fits a file of this name; with `labels`, whether it fits a note that has them."""
        if self.path is not None:
            return bool(self.path.search(name))
        return any(label == self.label or label.startswith(f"{self.label}/") for label in labels or ())


COMMON = Rule(
    BY_NAME,
    re.compile(
        f"(?:^|/)[^\\w/]*(?:\\d{{1,3}}(?:_|[^\\w/])+|_)?(?:{'|'.join(NAMES).replace('-', '[-_ ]?')})[^\\w/]*_?/", re.IGNORECASE
    ),
)


def rule(pattern: str, why: str) -> Rule:
    back, text = pattern.startswith("!"), nfc(pattern).removeprefix("!").strip()
    label = re.fullmatch(r"(?P<tag>#[^\s#]+)|(?P<key>[\w -]+):(?:\s+(?P<value>.*))?", text)
    if label and label["tag"]:
        return Rule(why, label=label["tag"].casefold(), back=back)
    if label and not re.search(r"[*?/]", text):
        value = (label["value"] or "").strip().strip("\"'").casefold()
        return Rule(why, label=f"{label['key'].strip().casefold()}:{f' {value}' if value else ''}", back=back)
    anchored = "/" in text.strip("/") or text.startswith("/")
    inner = re.escape(text.strip("/")).replace(r"\*\*/", "(?:[^/]*/)*").replace(r"\*\*", ".*")
    inner = inner.replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    path = f"{'^' if anchored else '^(?:.*/)?'}{inner}{'/' if text.endswith('/') else '(?:/|$)'}"
    many = len(re.findall(r"[*?]", text)) > FEW  # of which Python's own engine would try all ways
    if many and len(text) > LONGEST:
        raise UserError(f"{text[:40]}...: a pattern with wildcards has {LONGEST:,} characters at most")
    return Rule(why, Linear(path) if many else re.compile(path, re.IGNORECASE), back=back)


@dataclass(frozen=True)
class Choice:
    """The rules in order: common names, the vaults' settings, the recipe's own. The last rule that fits decides."""

    rules: tuple[Rule, ...]
    include: tuple[Rule, ...] = ()

    @staticmethod
    def of(sources: Sources) -> "Choice":
        own = tuple(rule(pattern, BY_RECIPE) for pattern in sources.exclude)
        return Choice((COMMON, *own), tuple(rule(pattern, NOT_INCLUDED) for pattern in sources.include))

    def with_vault(self, rules: list[Rule]) -> "Choice":
        """With the settings of a vault, which come before the recipe's own rules."""
        first = next((place for place, held in enumerate(self.rules) if held.why == BY_RECIPE), len(self.rules))
        return Choice((*self.rules[:first], *rules, *self.rules[first:]), self.include)

    def why_not(self, name: str, labels: Iterable[str] | None = None) -> str | None:
        """Why a file (a folder: with a slash behind it) is left alone, or, with its labels, a note; None where it is read."""
        why, name = None, nfc(name)
        for held in self.rules:
            if held.holds(name, labels):
                why = None if held.back else held.why
        if why or not self.include or (labels is None and any(held.label for held in self.include)):
            return why
        if name.endswith("/"):  # files further down may be named
            return None
        return None if any(held.holds(name, labels) for held in self.include) else NOT_INCLUDED
