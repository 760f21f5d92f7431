"""Answers that say the same again and again end, and only these."""

import random
from types import SimpleNamespace

import pytest

from mipo_mlx.serving import assistant as module
from mipo_mlx.serving.answer_text import LOOPED, AnswerText, loops
from tests.commands.test_chat import with_notes

from .test_assistant import assistant

__all__ = ["assistant", "with_notes"]
BEFORE = list(range(100, 130))


def plain(tokens: list[int]) -> bool:
    """Token by token: each of the last 48, or of the last four times as many as a stretch has, is the one a stretch before."""
    for size in range(1, 65):
        span = max(4 * size, 48)
        if len(tokens) >= span and all(tokens[-i] == tokens[-i - size] for i in range(1, span - size + 1)):
            return True
    return False


@pytest.mark.parametrize("size", [1, 2, 7, 12, 13, 64])
def test_a_stretch_again_and_again_is_a_loop(size):
    stretch = list(range(size))
    most = max(LOOPED, 4 * size)
    written = [loops((BEFORE + stretch * 60)[:length]) for length in range(1, len(BEFORE) + most + size)]
    assert not any(written[: len(BEFORE) + most - size]) and written[-1]
    assert not loops(list(range(65)) * 5)


def test_it_is_what_a_plain_search_finds():
    rng, found = random.Random(1), []
    for _ in range(300):
        tokens = rng.choices(range(4), k=9) + rng.choices(range(4), k=rng.randrange(1, 40)) * rng.randrange(1, 12)
        found.append(loops(tokens))
        assert found[-1] == plain(tokens)
    assert 50 < sum(found) < 250


class Letters:
    """A tokenizer of one letter a token."""

    all_special_ids: tuple[int, ...] = ()

    def __init__(self):
        self.detokenizer = SimpleNamespace(add_token=self._add, finalize=lambda: None, last_segment="")

    def _add(self, token):
        self.detokenizer.last_segment = chr(token)


def test_a_served_answer_ends_where_it_loops(monkeypatch):
    monkeypatch.setattr("mipo_mlx.models.control_tokens.of", lambda tokenizer: SimpleNamespace(ids={}))
    answer = AnswerText(Letters(), ())
    spoken = ""
    for letter in "A soup. " + "More soup. " * 40:
        spoken += answer.add(ord(letter))
        if answer.ended:
            break
    assert spoken == ("A soup. " + "More soup. " * 40)[: len(spoken)] and 48 < len(spoken) < 60


def test_an_answer_in_the_terminal_ends_where_it_loops(assistant, monkeypatch):
    pieces = [SimpleNamespace(text=f"{token} ", token=token) for token in [*BEFORE, *[1, 2, 3] * 100]]
    monkeypatch.setattr(module, "stream_generate", lambda *_, **more: iter(pieces[: more["max_tokens"]]))
    shown = []
    answer = assistant.answer([1], "tuned", shown.append)
    assert shown[-1] == " ..." and answer == "".join(shown[:-1])
    assert len(shown) - 1 == len(BEFORE) + LOOPED
