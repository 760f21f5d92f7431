"""Chat messages: the assistant's header ends the prompt, and templates without a system role still get the context."""

from mipo_mlx.models import chat
from mipo_mlx.recipe import Pairs

PAIRS = Pairs(system="About the user: {context} Be brief.", plain_system="Be brief.")


def test_messages_with_and_without_a_context():
    with_context = chat.messages(PAIRS, "What now?", " I keep {bees}. ")
    assert [m["content"] for m in with_context] == ["About the user: I keep {bees}. Be brief.", "What now?"]
    assert [m["content"] for m in chat.messages(PAIRS, "What now?", None)] == ["Be brief.", "What now?"]
    assert chat.messages(Pairs(plain_system=""), "What now?", None) == [{"role": "user", "content": "What now?"}]


def test_the_prompt_ends_with_the_assistant_header(tiny_tokenizer):
    ids = chat.encode(tiny_tokenizer, chat.messages(PAIRS, "What now?", "I keep bees."))
    assert tiny_tokenizer.decode(ids).endswith("What now?<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_without_a_system_role_gets_the_context_in_the_users_message(tokenizer_folder):
    from mlx_lm.utils import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_folder, eos_token_ids=2)
    tokenizer._tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    )
    text = tokenizer.decode(chat.encode(tokenizer, chat.messages(PAIRS, "What now?", "I keep bees.")))
    assert text == "<user>About the user: I keep bees. Be brief.\n\nWhat now?"


def test_end_of_turn(tiny_tokenizer):
    assert chat.end_of_turn(tiny_tokenizer) == {2}
