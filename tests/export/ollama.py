"""What Ollama makes of a Modelfile and of a Go template: its parser's rules and the constructs that we write."""

import re


def parse(text: str) -> list[tuple[str, str]]:
    """(command, value) of each command, by the rules of Ollama's parser: a value ends at the first newline where its quotes are
    closed; characters that cannot be printed are dropped."""
    commands, rest = [], text
    while rest.strip():
        line, _, after = rest.partition("\n")
        if not line.strip() or line.startswith("#"):
            rest = after
            continue
        command, _, value = line.partition(" ")
        assert command.lower() in ("from", "adapter", "template", "system", "parameter"), line
        while _unquoted(value.strip()) is None:
            assert after, f"{command} never ends"
            line, _, after = after.partition("\n")
            value += "\n" + line
        name = command.lower()
        if name == "parameter":
            name, _, value = value.partition(" ")
        kept = "".join(c for c in value if c.isprintable() or c in "\n\t")
        commands.append((name, _unquoted(kept.strip())))
        rest = after
    return commands


def _unquoted(value: str) -> str | None:
    for quote in ('"""', '"'):
        if value.startswith(quote):
            return value[len(quote) : -len(quote)] if len(value) >= 2 * len(quote) and value.endswith(quote) else None
    return value


def go(template: str, **values: str) -> str:
    """What Go's text/template makes of {{ .X }}, {{ "text" }} and {{ if .X }} ... {{ else }} ... {{ end }}, {{- included."""
    pieces = re.split(r"(\{\{-? .*? \}\})", template, flags=re.DOTALL)
    shown, stack = [], [True]
    for number, piece in enumerate(pieces):
        if number % 2 == 0:
            following = pieces[number + 1] if number + 1 < len(pieces) else ""
            shown.append((piece.rstrip() if following.startswith("{{-") else piece) if all(stack) else "")
            continue
        action = piece.strip("{}- ")
        if action.startswith("if ."):
            stack.append(bool(values.get(action[4:])))
        elif action == "else":
            stack[-1] = not stack[-1]
        elif action == "end":
            stack.pop()
        elif all(stack):
            shown.append(_text(action) if action.startswith('"') else values.get(action[1:], ""))
    assert stack == [True]
    return "".join(shown)


def _text(action: str) -> str:
    assert re.fullmatch(r'"(\\U[0-9a-f]{8})+"', action), action
    return "".join(chr(int(code, 16)) for code in re.findall(r"\\U([0-9a-f]{8})", action))
