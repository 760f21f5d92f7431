"""`mipo-mlx chat RUN`: talk to the result in a terminal. Each question brings the passages of the notes that fit it."""

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from unicodedata import normalize

from ..errors import UserError, printable
from ..files import disk_errors, touch_private, write_text
from ..memory.contexts import HISTORY, read_contexts
from ..models.chat_template import Messages
from ..progress import Reporter
from ..recipe import Recipe
from ..run import Run
from ..serving.assistant import LABELS, AnswerOptions, Assistant, Background, NamedContext

KEPT = 1000  # lines of the history
BLOCK = '"""'  # before and after a question of several lines
HELP = f"""an empty line, /quit or Ctrl-D ends the talk; Ctrl-C cuts an answer short
a line that ends with \\ goes on in the next one, and {BLOCK} begins and ends a question of several lines
/notes    the passages that went with the last question
/profile  the profile
/why      all that the model was told with the last question
/save     writes the talk to a file, /save FILE to that one"""


def find_context(folder: Path, recipe: Recipe, name: str) -> NamedContext:
    """What `--context` names: a file, or contexts of the run by their id, their note or a part of their file name.

    Raises UserError where nothing, or more than one note, has that name, and for a file without text.
    """
    contexts = read_contexts(folder, recipe)
    path = Path(name).expanduser()
    if path.is_file():
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if not text or "\0" in text:
            raise UserError(f"--context {name}: {'not text' if text else 'empty'}; expected a text file about the user")
        return NamedContext((text,))
    for attribute in ("id", "note", "source"):
        named = [c for c in contexts if alike(getattr(c, attribute)) == alike(name)]
        if named:
            return NamedContext.of(named)
    notes = sorted({c.source for c in contexts if alike(name) in alike(c.source)})
    if len(notes) == 1:
        return NamedContext.of([c for c in contexts if c.source == notes[0]])
    if notes:
        raise UserError(f"--context {name}: more than one note has that in its name: {', '.join(notes[:5])}")
    sources = sorted({c.source for c in contexts})
    some = f"there are {', '.join(sources[:5])}{', ...' if len(sources) > 5 else ''}" if sources else "the run keeps no notes"
    raise UserError(f"--context {name}: no such file, and no note of this run has that name; {some}")


def alike(text: str) -> str:
    """`text` as a person means it: the disk may keep a name in another form of Unicode, and a case counts for nothing."""
    return normalize("NFC", text).casefold()


def talk(run: Run, options: AnswerOptions) -> None:
    """Read questions from standard input and stream the answers, until an empty line or the end of the input."""
    assistant = Assistant(run.folder, run.recipe, options, Reporter())
    interactive = sys.stdin.isatty()
    if interactive:
        _remember_lines(run.folder / HISTORY)
        print(f"{printable(run.folder.name)}, {_what(assistant)}; an empty line ends the talk, /help shows more")
    talking = Talk(assistant)
    while question := _read("> " if interactive else ""):
        if question.startswith("/"):
            if question in ("/quit", "/exit"):
                break
            print(printable(talking.command(*question.split(maxsplit=1))))
        else:
            talking.ask(question)
    if interactive:
        _keep_lines(run.folder / HISTORY)


class Talk:
    """A talk as it goes on: what either model has said, and what the last question brought along."""

    def __init__(self, assistant: Assistant) -> None:
        self.assistant = assistant
        self.histories: dict[str, Messages] = {side: [] for side in assistant.sides}
        self.background: Background | None = None
        self.written: list[str] = []  # the talk as Markdown

    def ask(self, question: str) -> None:
        """Print the answer of each model, and the notes that it was told."""
        background = self.assistant.background(question)
        self.written.append(f"**{question}**")
        for side, history in self.histories.items():
            history.append({"role": "user", "content": question})
            prompt, self.background = self.assistant.prompt(history, background)
            label = LABELS[side] if len(self.histories) > 1 else ""
            print(label, end="", flush=True)
            answer = self.assistant.answer(prompt, side, lambda piece: print(printable(piece), end="", flush=True))
            print()
            history.append({"role": "assistant", "content": answer})
            self.written.append(f"{label}{answer}")
        if self.background and self.background.matches:
            print(printable(self.background.places))
            self.written.append(self.background.places)

    def command(self, name: str, rest: str = "") -> str:
        commands: dict[str, Callable[[], str]] = {
            "/notes": self._notes,
            "/profile": lambda: self.assistant.profile or "no profile; `mipo-mlx profile` makes one",
            "/why": lambda: self.background.system or "nothing" if self.background else "nothing was asked yet",
            "/save": lambda: self._save(rest),
            "/help": lambda: HELP,
        }
        return commands[name]() if name in commands else f"no such command; {HELP}"

    def _notes(self) -> str:
        if self.background is None:
            return "nothing was asked yet"
        shown = [f"[{match.place}] {match.score:.2f}\n{match.entry.text}" for match in self.background.matches]
        return "\n\n".join(shown) or "none of the notes fits the last question"

    def _save(self, name: str) -> str:
        path = Path(name).expanduser() if name else Path(f"talk-{datetime.now():%Y-%m-%d-%H%M%S}.md")
        try:
            write_text(path, "\n\n".join([f"# Talk with {self.assistant.folder.name}", *self.written]) + "\n")
            path.chmod(0o600)
        except OSError as error:
            return f"{path}: {(error.strerror or type(error).__name__).lower()}; name another file"
        return f"written to {path}"


def _what(assistant: Assistant) -> str:
    """What the assistant answers with, in a few words."""
    if assistant.options.context:
        return "with the context that you named"
    parts = ["your profile"] if assistant.profile else []
    parts += ["your notes"] if assistant.memory else []
    return f"with {' and '.join(parts)}" if parts else "without a context (--context FILE_OR_NOTE)"


def _read(prompt: str) -> str:
    """The next question, of one line or several; "" at the end of the input or after Ctrl-C."""
    try:
        line = input(prompt)
        more = "... " if prompt else ""
        if line.strip().startswith(BLOCK):
            lines = [line.strip().removeprefix(BLOCK)]
            while not lines[-1].rstrip().endswith(BLOCK):
                lines.append(input(more))
            lines[-1] = lines[-1].rstrip().removesuffix(BLOCK)
            return "\n".join(lines).strip() or _read(prompt)
        while line.endswith("\\"):
            line = f"{line[:-1]}\n{input(more)}"
        return line.strip()
    except (EOFError, KeyboardInterrupt):
        print()
        return ""


def _remember_lines(path: Path) -> None:
    """Line editing, and the lines of earlier talks under the arrow keys."""
    import readline

    if path.exists():
        readline.read_history_file(path)
    readline.set_history_length(KEPT)


def _keep_lines(path: Path) -> None:
    """Write the lines for the next talk; they are as private as the notes."""
    import readline

    with disk_errors(path):
        touch_private(path)
        readline.write_history_file(path)
