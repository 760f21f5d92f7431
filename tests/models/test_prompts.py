"""Chat messages: the assistant's header ends the prompt, and templates without a system role still get the context."""

import pytest

from mipo_mlx.export.system import render
from mipo_mlx.models import prompts
from mipo_mlx.recipe import Pairs

PAIRS = Pairs(system="About the user: {context} Be brief.", plain_system="Be brief.")


def test_messages_with_and_without_a_context():
    with_context = prompts.messages(PAIRS, "What now?", " I keep {bees}. ")
    assert [m["content"] for m in with_context] == ["About the user: I keep {bees}. Be brief.", "What now?"]
    assert [m["content"] for m in prompts.messages(PAIRS, "What now?", None)] == ["Be brief.", "What now?"]
    assert prompts.messages(Pairs(plain_system=""), "What now?", None) == [{"role": "user", "content": "What now?"}]


def test_the_prompt_ends_with_the_assistant_header(tiny_tokenizer):
    ids = prompts.encode(tiny_tokenizer, prompts.messages(PAIRS, "What now?", "I keep bees."))
    assert tiny_tokenizer.decode(ids).endswith("What now?<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_without_a_system_role_gets_the_context_in_the_users_message(tokenizer_folder):
    from mlx_lm.utils import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_folder, eos_token_ids=2)
    tokenizer._tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    )
    text = tokenizer.decode(prompts.encode(tokenizer, prompts.messages(PAIRS, "What now?", "I keep bees.")))
    assert text == "<user>About the user: I keep bees. Be brief.\n\nWhat now?"


THINKING = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "<assistant>{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
)
DATED = "\n{{ strftime_now('%d %b %Y') }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (THINKING, "<user>hi<assistant><think></think>"),
        (DATED, "\n26 Jul 2024<user>hi"),
        ("{{ strftime_now('%A %-d.%-m.%y, %H:%M') }}", "Friday 26.7.24, 12:00"),
        ({"default": DATED, "tools": PLAIN}, "\n26 Jul 2024<user>hi"),
        (PLAIN, "<user>hi"),
    ],
)
def test_a_prompt_asks_for_no_thinking_and_is_the_same_tomorrow(template, expected, tokenizer_folder):
    from mlx_lm.utils import load_tokenizer

    tokenizer, messages = load_tokenizer(tokenizer_folder, eos_token_ids=2), [{"role": "user", "content": "hi"}]
    tokenizer._tokenizer.chat_template = template
    tokenizer._think_start = "<think>"  # as mlx-lm finds in a thinking model's vocabulary
    assert tokenizer.decode(prompts.encode(tokenizer, messages)) == expected
    assert isinstance(template, dict) or render(tokenizer, template, messages) == expected
