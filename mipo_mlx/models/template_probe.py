"""A chat template is a program of whoever made the model: one that could run on or grow is tried first, in a process with limits.

Most templates are a loop over the messages. They cannot, and cost nothing here. Others (loops within loops, macros, products,
widths) are rendered once by a process that the system ends after SECONDS of computing, and that gets MEMORY bytes.
"""

import json
import re
import subprocess
import sys
from functools import lru_cache

from jinja2 import Environment, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import UserError
from .process_limits import limit, watched

SECONDS, MEMORY = 5, 1 << 30
PATIENCE = 60  # seconds by the clock, on a machine that does much else
LONGEST = 256 << 10  # characters; the longest template that is known has some 30,000
GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")  # a tag of transformers' own, which writes nothing
SAFE = frozenset(
    "Template Output TemplateData If Name NSRef Getattr Getitem Compare Operand And Or Not Neg Sub Test Keyword CondExpr Slice Add "
    "Concat List Tuple Dict Pair".split()
)
FILTERS = {"trim", "length", "count", "default", "upper", "lower", "string", "first", "last", "tojson", "capitalize", "title"}
CALLS = {"raise_exception", "strftime_now", "strip", "lstrip", "rstrip", "startswith", "endswith", "upper", "lower", "items", "get"}
LARGE = 1000
CHATS = (["user"], ["system", "user"], ["user", "assistant", "user"], ["system", "user", "assistant"] * 3)
TOO_MUCH = 3  # the exit code where memory, recursion or a number has no room


def check(template: str, where: str) -> None:
    """Raise UserError for a chat template that takes too long or too much memory. where: what the message names."""
    if why := _why_not(template):
        raise UserError(f"{where}: its chat template {why}; take the model from another source, or put another template into it")


@lru_cache(64)
def _why_not(template: str) -> str:
    """What is wrong with a template; '' for nothing."""
    if len(template) > LONGEST:
        return f"has {len(template):,} characters, and none needs more than {LONGEST:,}"
    template = GENERATION.sub("", template)
    if is_plain(template):
        return ""
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import probe; probe()"
    order = json.dumps([SECONDS, MEMORY, template]).encode()
    try:
        done = subprocess.run([sys.executable, "-IB", "-c", code], input=order, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"is not done after {PATIENCE} seconds"
    return f"takes more than {SECONDS} seconds or {MEMORY >> 30} GB for a short chat" if done.returncode else ""


def probe() -> None:
    """The process: it renders the template for a few short chats. What the template refuses or gets wrong is no matter here."""
    seconds, memory, template = json.load(sys.stdin)
    limit(seconds, memory)
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals.update(raise_exception=_refuse, strftime_now=lambda form: form)
    with watched(memory):
        for roles in CHATS:
            turns = [{"role": role, "content": "a"} for role in roles]
            given = {"messages": turns, "add_generation_prompt": True, "enable_thinking": False}
            try:
                environment.from_string(template).render(**given, bos_token="<s>", eos_token="</s>")
            except (MemoryError, RecursionError, OverflowError):
                sys.exit(TOO_MUCH)
            except Exception:
                pass


def _refuse(text: str = "") -> None:
    raise TemplateError(text)


def is_plain(template: str) -> bool:
    """Whether a template is one loop after the other over what it is given, without what makes a text or a number grow."""
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except (TemplateError, RecursionError):
        return False
    return all(_is_safe(node) for node in tree.find_all(nodes.Node))


def _is_safe(node: nodes.Node) -> bool:
    if isinstance(node, nodes.For):
        return not node.recursive and not any(inner is not node for inner in node.find_all(nodes.For))
    if isinstance(node, nodes.Const):
        return not isinstance(node.value, int) or abs(node.value) <= LARGE
    if isinstance(node, nodes.Mod):  # '%9999999d' % 1 is a text
        return not isinstance(node.left, nodes.Const | nodes.TemplateData)
    if isinstance(node, nodes.Assign):  # x ~ x doubles a text with each line
        return not any(node.find_all((nodes.Concat, nodes.Add)))
    if isinstance(node, nodes.Filter):
        return node.name in FILTERS and not (node.name == "tojson" and (node.args or node.kwargs))
    if isinstance(node, nodes.Call):
        return getattr(node.node, "name", getattr(node.node, "attr", "")) in CALLS
    return type(node).__name__ in SAFE
