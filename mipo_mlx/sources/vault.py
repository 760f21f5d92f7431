"""What a vault's own settings leave out: Obsidian's excluded files, folders of templates and plug-ins; Logseq's "
"and Foam's lists."""

import json
import re
from collections.abc import Callable
from typing import Any

from .choice import BY_VAULT, Rule, rule
from .decode import nfc

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
LOGSEQ = re.compile(r":hidden\s*\[([^\]]*)\]")
LOGSEQ_FOLDERS = re.compile(r":(?:pages|journals)-directory\s+\"([^\"]+)\"")


def rules_of(text: Text, beneath: str = "") -> list[Rule]:
    """The rules of a vault. `beneath`: its folder, seen from the notes folder, with a slash behind it; '' for the notes folder."""
    rules = []
    attachments = _at(_json(text, ".obsidian/app.json"), "attachmentFolderPath")
    for ignored in _strings(_at(_json(text, ".obsidian/app.json"), "userIgnoreFilters")):
        rules += _ignored(ignored, beneath)
    if isinstance(attachments, str) and re.search(r"\w", attachments):  # "/" and "./" put attachments beside the notes
        anchored = attachments.startswith("./")
        rules.append(rule(f"{'' if anchored else '/'}{attachments.removeprefix('./').strip('/')}/", BY_VAULT, beneath))
    for file, way, folder in OBSIDIAN:
        name = _at(_json(text, f".obsidian/{file}"), way)
        if isinstance(name, str) and name.strip("/ "):
            path = f"/{name.strip('/ ')}"
            rules.append(rule(f"{path}/" if folder else path if path.endswith(".md") else f"{path}.md", BY_VAULT, beneath))
    edn = re.sub(r";.*", "", text("logseq/config.edn") or "")
    for hidden in LOGSEQ.findall(edn):
        rules += [
            rule(f"/{name.strip('/')}", BY_VAULT, beneath) for name in re.findall(r"\"([^\"]+)\"", hidden) if name.strip("/.")
        ]
    foam = _json(text, ".vscode/settings.json")
    for name in _strings(foam.get("foam.files.ignore")) if isinstance(foam, dict) else []:
        rules.append(rule(re.sub(r"/\*\*?/\*$|/\*\*?$", "/", name), BY_VAULT, beneath))
    return rules


def logseq_folders(config: str) -> tuple[str, ...]:
    """The names of the folders of a Logseq graph's pages and journals, by its config.edn."""
    return ("pages", "journals", *LOGSEQ_FOLDERS.findall(re.sub(r";.*", "", config)))


def _ignored(text: str, beneath: str) -> list[Rule]:
    """A line of Obsidian's list of excluded files: a regular expression between slashes, or the beginning of a path."""
    inside = re.fullmatch(r"/(.+)/", text)
    try:
        path = re.compile(f"^{re.escape(beneath)}(?=.*?(?:{inside[1]}))" if inside else f"^{re.escape(beneath + nfc(text))}", re.I)
    except re.error:
        return []
    return [Rule(BY_VAULT, path)]


def _json(text: Text, name: str) -> Any:
    try:
        return json.loads(re.sub(r"^\s*//.*$", "", text(name) or "{}", flags=re.MULTILINE))
    except (ValueError, RecursionError):
        return {}


def _at(values: Any, way: str) -> Any:
    for key in way.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _strings(values: Any) -> list[str]:
    return [value for value in values if isinstance(value, str) and value.strip()] if isinstance(values, list) else []
