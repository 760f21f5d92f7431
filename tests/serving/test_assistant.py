"""What the assistant tells the model beside a system message of the client's own, and what goes first where the window is full."""

import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.models.prompts import encode
from mipo_mlx.progress import Reporter
from mipo_mlx.run import existing_run
from mipo_mlx.serving import assistant as module
from mipo_mlx.serving.assistant import AnswerOptions, Assistant
from tests.commands.test_chat import COOK, SOUP, with_notes

__all__ = ["with_notes"]
OWN = "You write plain Markdown."


@pytest.fixture
def assistant(with_notes) -> Assistant:
    return Assistant(with_notes, existing_run(with_notes, with_notes.parent).recipe, AnswerOptions(), Reporter(quiet=True))


def test_the_clients_message_stands_before_the_frame(assistant):
    assert assistant.background(COOK, before=OWN).system == f"{OWN}\n\nAbout the user: {SOUP}"
    assert assistant.background(COOK, notes=False, before=OWN).system == OWN  # in place of the plain message
    assert assistant.background(COOK, notes=False).system == "Answer."


def test_a_new_profile_is_told_with_the_next_question(assistant):
    assert "bees" not in assistant.background(COOK, notes=False, before=OWN).system
    (assistant.folder / "profile.md").write_text("- The user keeps bees.\n")
    system = assistant.background(COOK, notes=False, before=OWN).system
    assert system.startswith(f"{OWN}\n\n") and "The user keeps bees." in system


def test_a_talk_of_any_turns_loses_its_oldest_ones_and_keeps_the_clients_message(assistant):
    background = assistant.background(COOK, before=OWN)
    roles = ("assistant", "user", "user", "assistant", "assistant", "user")
    turns = [{"role": role, "content": f"{role} {place} " * 4} for place, role in enumerate(roles)]
    whole, _ = assistant.prompt(turns, background, window=10_000)
    for kept in (turns[1:], turns[2:], turns[5:]):
        exact, _ = assistant.prompt(kept, background, window=10_000)
        assert assistant.prompt(turns, background, window=len(exact))[0] == exact
        assert len(exact) < len(whole)
    alone = assistant.background(COOK, notes=False, before=OWN)
    least, _ = assistant.prompt(turns[5:], alone, window=10_000)
    tokens, kept = assistant.prompt(turns, background, window=len(least))
    assert tokens == least and kept.matches == () and kept.system == OWN
    with pytest.raises(UserError, match="tokens, and 5 fit into"):
        assistant.prompt(turns, background, window=5)


def test_a_talk_of_two_thousand_turns_is_cut_in_few_encodings(assistant, monkeypatch):
    lengths: list[int] = []

    def counted(tokenizer, messages):
        lengths.append(len(messages))
        return encode(tokenizer, messages)

    monkeypatch.setattr(module, "encode", counted)
    turns = [{"role": ("user", "assistant")[place % 2], "content": f"word {place}"} for place in range(1_999)]
    background = assistant.background(COOK, notes=False)
    tokens, _ = assistant.prompt(turns, background, window=600)
    assert len(tokens) <= 600 and len(lengths) < 20 and sum(lengths) < 3 * len(turns)
    longer = lengths[-1] - 1 + 2  # turns that were kept, and two more
    assert len(assistant.prompt(turns[-longer:], background, window=10_000)[0]) > 600
