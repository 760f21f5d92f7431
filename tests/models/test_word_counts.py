"""A text's tokens are the sum of its words', for every tokenizer that cuts words apart; the others count whole texts."""

import random

import pytest
from mlx_lm.utils import load_tokenizer

from mipo_mlx.models import control_tokens, prompts
from mipo_mlx.models.word_counts import KINDS, Uneven, Words, stand_apart
from tests.export.helpers import AWKWARD, train_bpe, train_spm

CUT = ("smollm", "qwen2", "llama-bpe", "gpt-2", "dbrx")


@pytest.fixture(scope="module", params=[*CUT, "spm", "spm-bare"])
def known(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (train_bpe if request.param in CUT else train_spm)(folder, request.param)
    return request.param, load_tokenizer(folder, eos_token_ids=2)


def texts() -> list[str]:
    rng = random.Random(0)
    words = [*KINDS, "bees", "Garden,", "it's", "3.5", "end.", "(so)", "été", "12345", "x" * 250, "日本", "<|im_end|>", "", "\t"]
    random_texts = [rng.choice(" \n").join(rng.choices(words, k=rng.randrange(1, 12))) for _ in range(400)]
    mixed = ["".join(rng.choice(words) + rng.choice((" ", " ", "\n", "")) for _ in range(9)) for _ in range(400)]
    return [*AWKWARD, *random_texts, *mixed, "", " ", "\n", "a ", " a", "a\n", "a\n\nb", "a \nb", "a\n b", "a\u00a0b", "a \u0301b"]


def test_a_count_is_the_number_of_ids(known):
    name, tokenizer = known
    tokens = control_tokens.of(tokenizer)
    assert bool(tokens.words) == (name in CUT)
    for text in (text for _ in range(2) for text in texts()):  # the second time from memory
        assert prompts.count_tokens(tokenizer, text) == len(prompts.encode_text(tokenizer, text)), text


def test_words_are_remembered_and_long_ones_are_not():
    asked = []
    words = Words(lambda text: asked.append(text) or len(text), lambda text: "<end>" in text)
    assert words.total("so it is.\nso it is") == words.total("so it is.\nso it is") == 2 + 3 + 5 + 2 + 3 + 3
    assert asked == ["so", " it", " is.\n", " is"]
    long = "x" * 250
    assert words.total(f"a {long}") == words.total(f"a {long}") == 252 and asked[4:] == ["a", f" {long}", f" {long}"]
    for text in ("", " a", "a ", "a  b", "a \nb", "a\n b", "a\n", "a\n\nb", "a\u00a0 b", "a <end> b"):
        with pytest.raises(Uneven):
            words.total(text)


@pytest.mark.parametrize("pattern", [r"\w+ \w+|.", r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+(?!\S)|\s+|\S", r"\s|\S+(?= \d)|\S"])
def test_a_tokenizer_that_looks_across_words_counts_whole_texts(pattern):
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

    def raw(pattern=r" ?\S+|\s") -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
        return tokenizer

    assert stand_apart(raw()) and not stand_apart(raw(pattern))
    changed = raw()
    changed.normalizer = normalizers.Replace(" ", "▁")
    assert not stand_apart(changed)
    for token in (AddedToken("New York"), AddedToken("<sep>", rstrip=True), AddedToken("a\n")):
        changed = raw()
        changed.add_tokens([token])
        assert not stand_apart(changed), token
