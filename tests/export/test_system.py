"""The default system message: there without a flag, replaced by the user's own, the same in llama.cpp and transformers."""

import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.export import system
from mipo_mlx.export.llamacpp import Llama
from mipo_mlx.export.system import default_system
from mipo_mlx.files import write_records
from mipo_mlx.recipe import Pairs, Recipe
from mipo_mlx.records import Context
from tests.conftest import CHAT_TEMPLATE

from .helpers import Tiny

FRAME = Pairs().profile_system

PROFILE = 'I\'m Ana; I "bake" {{ bread }} {% on %} C:\\new\\table.\nTwo lines, ümläut 🙂, a tab\there.'
ALONE = [{"role": "user", "content": "hi"}]
OWN = [{"role": "system", "content": "Own words."}, {"role": "user", "content": "hi"}]
LONG = [*OWN, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "bye"}]
SMOLLM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] "
    "+ '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token "
    "+ content %}{% endif %}{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
QWEN = (
    "{%- if tools %}{{- '# Tools' }}{%- else %}{%- if messages[0]['role'] == 'system' %}"
    "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}{%- else %}"
    "{{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}{%- endif %}{%- endif %}"
    "{%- for message in messages %}{%- if (message.role == 'user') or (message.role == 'system' and not loop.first) or "
    "message.role == 'assistant' %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
QWEN3 = SMOLLM.replace(
    "{{ '<|im_start|>assistant\n' }}",
    "{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}",
)
TEMPLATES = {"chatml": CHAT_TEMPLATE, "smollm": SMOLLM, "llama3": LLAMA3, "qwen": QWEN}


@pytest.mark.parametrize("name", TEMPLATES)
def test_default_shows_and_own_message_replaces_it(name, tiny_llama: Tiny):
    changed = system.with_default(TEMPLATES[name], PROFILE, tiny_llama.tokenizer)
    shown = system.render(tiny_llama.tokenizer, changed, ALONE)
    assert PROFILE in shown and shown.index(PROFILE) < shown.index("hi")
    for chat in (OWN, LONG):
        assert system.render(tiny_llama.tokenizer, changed, chat) == system.render(tiny_llama.tokenizer, TEMPLATES[name], chat)


@pytest.mark.parametrize("name", TEMPLATES)
def test_llamacpp_renders_the_same(name, tiny_llama: Tiny, tmp_path, needs_llamacpp):
    changed = system.with_default(TEMPLATES[name], PROFILE, tiny_llama.tokenizer)
    with Llama(tiny_llama.write(tmp_path / "model.gguf", template=changed), context=128) as llama:
        for chat in (ALONE, OWN, LONG):
            theirs = llama.template(chat)
            ours = system.render(tiny_llama.tokenizer, changed, chat)
            assert theirs.removeprefix("<|endoftext|>") == ours.removeprefix("<|endoftext|>")


def test_a_model_without_system_role_gets_it_in_the_first_message(tiny_llama: Tiny, tmp_path, needs_llamacpp):
    changed = system.with_default(GEMMA, PROFILE, tiny_llama.tokenizer)
    shown = system.render(tiny_llama.tokenizer, changed, ALONE)
    assert f"user\n{PROFILE}\n\nhi<end_of_turn>" in shown
    with Llama(tiny_llama.write(tmp_path / "model.gguf", template=changed), context=128) as llama:
        assert llama.template(ALONE).removeprefix("<|endoftext|>") == shown.removeprefix("<|endoftext|>")


def test_a_template_that_shows_nothing_is_refused(tiny_llama: Tiny):
    with pytest.raises(UserError, match="export.system"):
        system.with_default("fixed text", PROFILE, tiny_llama.tokenizer)


def recipe(**more) -> Recipe:
    return Recipe(model="m", pairs={"system": "The user has said: {context}"}, **more)


def text(folder, system="auto", **more) -> str:
    return default_system(folder, recipe(export={"system": system}, **more)).text


FACTS = "# Profile\n<!-- edit me -->\n- I keep bees. <!-- notes/a.md:3, b.md:1 -->\n- I bake. [c.md:2]\n"


def test_none_and_a_text(tmp_path):
    (tmp_path / "profile.md").write_text(FACTS)
    assert text(tmp_path, "none") == text(tmp_path, "") == "" and text(tmp_path, "Be brief.\r\n") == "Be brief."
    assert default_system(tmp_path, recipe(export={"system": "none"})).missing == ""


@pytest.mark.parametrize("wanted", ["auto", "profile"])
def test_the_profile_is_facts_in_a_frame_of_its_own(tmp_path, wanted):
    (tmp_path / "profile.md").write_text(FACTS)
    assert text(tmp_path, wanted) == FRAME.format(profile="I keep bees.\nI bake.")
    assert "has said" not in text(tmp_path, wanted) and "sentence" not in text(tmp_path, wanted)
    assert recipe().export.system == "auto"


@pytest.mark.parametrize("written", [None, "", "# Profile\n<!-- nothing yet -->\n", "\n\n"])
def test_without_a_fit_profile_auto_says_so_and_takes_no_note(tmp_path, written):
    write_records(tmp_path / "contexts.jsonl", [Context("1", "My secret is 1234.", "1", "a.md", 1, "train", 5)])
    if written is not None:
        (tmp_path / "profile.md").write_text(written)
    missing = default_system(tmp_path, recipe())
    assert missing.text == "" and "profile.md is missing or has no facts; `mipo-mlx profile`" in missing.missing
    with pytest.raises(UserError, match="export.system: .*profile.md is missing or has no facts"):
        text(tmp_path, "profile")


def test_a_profile_among_the_notes_counts_where_the_recipe_names_it(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "run").mkdir()
    notes = {"sources": {"notes": str(tmp_path / "notes")}}
    (tmp_path / "profile.txt").write_text("I keep bees.")
    assert text(tmp_path / "run", "profile", **notes) == FRAME.format(profile="I keep bees.")
    assert text(tmp_path / "run", "auto", **notes) == ""  # a note of that name may be about anything
    (tmp_path / "notes" / "profile.md").write_text("I bake.")
    assert text(tmp_path / "run", "profile", **notes) == FRAME.format(profile="I bake.")


def test_the_profile_of_several_people_is_refused(tmp_path):
    (tmp_path / "profile.md").write_text("## Ann\n- The user bakes.\n## Bo\n- The user sings.\n")
    assert text(tmp_path) == FRAME.format(profile="The user bakes.\nThe user sings.")  # one author's chapters
    people = {"sources": {"columns": {"note": "user"}}}
    with pytest.raises(UserError, match="profile of 2 people"):
        text(tmp_path, "profile", **people)
    assert text(tmp_path, "auto", **people) == ""
    assert "profile of 2 people" in default_system(tmp_path, recipe(**people)).missing
