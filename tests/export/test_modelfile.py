"""The Modelfile's Go template lays a conversation out exactly as the model's own Jinja template does."""

import re

import pytest

from mipo_mlx.export import modelfile, system

from .helpers import Tiny
from .test_system import GEMMA, LLAMA3, QWEN, QWEN3, SMOLLM, TEMPLATES

SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}


def go(template: str, **values: str) -> str:
    """What Go's text/template makes of the two constructs that we write: {{- if .X }}...{{ end }} and {{ .X }}."""
    template = re.sub(
        r"\s*\{\{- if \.(\w+) \}\}(.*?)\{\{ end \}\}", lambda m: m[2] if values.get(m[1]) else "", template, flags=re.DOTALL
    )
    return re.sub(r"\{\{ \.(\w+) \}\}", lambda m: values.get(m[1], ""), template)


@pytest.mark.parametrize("template", [*TEMPLATES.values(), QWEN3])
def test_go_template_equals_jinja(template, tiny_llama: Tiny):
    parts = modelfile.layout(tiny_llama.tokenizer, template)
    theirs = system.render(tiny_llama.tokenizer, template, [SYSTEM, USER])
    ours = go(modelfile.go_template(parts), System="Be brief.", Prompt="hi")
    assert ours[: ours.rindex(parts.after_answer)] == theirs


def test_default_system_messages_are_found(tiny_llama: Tiny):
    assert modelfile.layout(tiny_llama.tokenizer, SMOLLM).default_system == "You are a helpful AI assistant"
    assert modelfile.layout(tiny_llama.tokenizer, QWEN).default_system == "You are Qwen."
    assert modelfile.layout(tiny_llama.tokenizer, LLAMA3).default_system == ""
    changed = system.with_default(QWEN, "I keep bees.\nTwo lines.", tiny_llama.tokenizer)
    assert modelfile.layout(tiny_llama.tokenizer, changed).default_system == "I keep bees.\nTwo lines."


def test_a_template_without_system_role_is_left_to_ollama(tiny_llama: Tiny):
    text = modelfile.modelfile("./x.gguf", tiny_llama.tokenizer, GEMMA, {})
    assert "TEMPLATE" not in text and "FROM ./x.gguf" in text


def test_stop_tokens_and_sampling(tiny_llama: Tiny):
    text = modelfile.modelfile("./x.gguf", tiny_llama.tokenizer, SMOLLM, {"temp": 0.7, "top_k": 20})
    assert 'PARAMETER stop "<|im_end|>"' in text and "PARAMETER temperature 0.7" in text and "PARAMETER top_k 20" in text
