"""Chats with assistants saved in further layouts: signs for names, other languages, outlines, chat templates, single programs."""
# ruff: noqa: E501

import json

import pytest

from .test_cases import notes_of, written

A, B = "I planted forty cloves of garlic behind the shed.", "My sister visits me on Sunday, so I bake."
X, Y = "Penguins huddle in rotating circles to stay warm.", "The committee wants a new pump before winter."
KEPT = {  # (before the owner's turn, behind it, before the assistant's, behind it): the owner's turns stay
    "signs": ("🧑 ", "\n\n", "🤖 ", "\n\n"),
    "coders": ("🧑‍💻 ", "\n\n", "🤖: ", "\n\n"),
    "german": ("Du hast gesagt:\n", "\n\n", "ChatGPT hat gesagt:\n", "\n\n"),
    "french": ("Vous avez dit :\n", "\n\n", "ChatGPT a dit :\n", "\n\n"),
    "portuguese": ("Você disse:\n", "\n\n", "O ChatGPT disse:\n", "\n\n"),
    "spanish": ("Dijiste:\n", "\n\n", "ChatGPT dijo:\n", "\n\n"),
    "copilot": ("You said\n", "\n\n", "Copilot said\n", "\n\n"),
    "ai behind": ("### Utilisateur\n", "\n\n", "### Assistant IA\n", "\n\n"),
    "ai before": ("**Usuario:** ", "\n\n", "**AI assistant:** ", "\n\n"),
    "bold copilot": ("**You:** ", "\n\n", "**Copilot:** ", "\n\n"),
    "agent": ("_**User**_\n\n", "\n\n---\n\n", "_**Agent (model default)**_\n\n", "\n\n---\n\n"),
    "at": ("@user\n", "\n", "@assistant\n", "\n"),
    "outline": ("- ", "\n", "\t- 🤖 ", "\n\t\t- Next, see below.\n"),
    "chatml": ("<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n", "<|im_end|>\n"),
    "gemma": ("<start_of_turn>user\n", "<end_of_turn>\n", "<start_of_turn>model\n", "<end_of_turn>\n"),
    "llama 3": (
        "<|start_header_id|>user<|end_header_id|>\n",
        "<|eot_id|>\n",
        "<|start_header_id|>assistant<|end_header_id|>\n",
        "<|eot_id|>\n",
    ),
    "inst": ("[INST] ", " [/INST]\n", "", "\n"),
    "claude code": ("> ", "\n\n", "⏺ ", "\n\n"),
}


@pytest.mark.parametrize("layout", KEPT)
def test_the_owners_turns_stay(tmp_path, layout):
    before, behind, opening, closing = KEPT[layout]
    text = "".join(f"{before}{own}{behind}{opening}{other}{closing}" for own, other in ((A, X), (B, Y)))
    notes, tally = written(tmp_path, {"a.md": text})
    assert notes["a.md"].replace("- ", "").split("\n") == [A, B]
    assert tally.removed["turns of an assistant"] == 2


@pytest.mark.parametrize("line", ["View other drafts", "他の回答案を表示", "Andere Entwürfe ansehen", "查看其他草稿"])
def test_an_answer_of_bard_below_the_words_of_its_page(tmp_path, line):
    notes, _ = written(tmp_path, {"a.md": f"{A}\n{line}\n\n{X}\n\n1. {Y}\n\n## Evening\n\n{B}", "b.md": B})
    assert notes["a.md"] == f"{A}\nEvening\n{B}"


@pytest.mark.parametrize(
    "text",
    [
        f"# aider chat started at 2023-11-03 18:22:10\n\n> Aider v0.60.0\n\n#### {A}\n\n{X}\n\n> Tokens: 3k\n\n#### {B}\n\n{Y}\n",
        f'<img src="https://r2cdn.perplexity.ai/pplx-full-logo.png"/>\n\n# {A}\n\n{X} [^1]\n\n## More\n{Y}\n\n---\n\n# {B}\n\n{X}\n\n⁂\n',
    ],
)
def test_programs_with_a_layout_of_their_own(tmp_path, text):
    notes, _ = written(tmp_path, {"a.md": text})
    assert list(notes.values()) == [f"{A}\n{B}"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.org", f":PROPERTIES:\n:GPTEL_MODEL: m\n:GPTEL_BOUNDS: ((response (60 120)))\n:END:\n{A}\n\n{X}\n"),
        ("a.md", f"{A}\n\n{X}\n\n<!-- Local Variables: -->\n<!-- gptel--bounds: ((response (60 120))) -->\n"),
        ("a.txt", f"{A}\n\n{X}\n\n# gptel--bounds: ((60 . 120))\n"),
    ],
)
def test_a_chat_whose_turns_are_not_marked_is_left_alone(tmp_path, name, text):
    notes, tally = written(tmp_path, {name: text, "b.md": B})
    assert list(notes) == ["b.md"] and tally.left_alone["chats with an assistant whose turns are not marked"] == 1


@pytest.mark.parametrize("block", ["response", "quote", "RESPONSE"])
def test_answers_in_org(tmp_path, block):
    notes, _ = written(
        tmp_path, {"a.org": f"* Garden\n{A}\n#+begin_{block}\n{X}\n#+end_{block}\n* Week\n{B}\n#+RESULTS:\n: 42 pumps\n"}
    )
    assert not {X, "42"} & {part for note in notes.values() for part in note.split("\n")} and B in "".join(notes.values())


def test_deepseek_names_the_kinds_of_parts(tmp_path):
    parts = [[("REQUEST", A)], [("THINK", Y), ("RESPONSE", X)], [("REQUEST", B)]]
    mapping = {
        str(n): {
            "id": str(n),
            "parent": str(n - 1) if n else None,
            "message": {"model": "m", "fragments": [{"type": kind, "content": text} for kind, text in some]},
        }
        for n, some in enumerate(parts)
    }
    (tmp_path / "conversations.json").write_text(json.dumps([{"id": "x", "title": "Garden", "mapping": mapping}]))
    notes, _ = notes_of(tmp_path)
    assert list(notes.values()) == [f"{A}\n{B}"]


@pytest.mark.parametrize(
    "text",
    [
        "🧑 My father taught me to sail.\n\n👩 My mother taught me to bake.\n\n🧑 My brother teaches me patience.",
        "- I keep bees\n\t- 🤖 is what my son calls the extractor\n- I sell honey",
        "**Agent:** my aunt sold houses for thirty years.\n\n**Buyer:** that was me in 2019.",
        "Hai detto che vieni domenica.\n\nIo preparo la torta di prugne.",
        "> Old words of somebody\n\nI like them.\n\n[INSTALL] the shelf on Monday.",
    ],
)
def test_notes_that_only_look_like_a_chat(tmp_path, text):
    notes, tally = written(tmp_path, {"a.md": text})
    assert not tally.removed["turns of an assistant"] and notes["a.md"].count(".") >= text.count(".") - 1


@pytest.mark.parametrize(
    "label", ["AI Answer", "[[AI/Response]]", "ChatGPT's response", "**Claude reply**", "AI summary", "Resumen de ChatGPT"]
)
@pytest.mark.parametrize("mark", ["- ", "- ## "])
def test_an_assistants_part_of_an_outline_is_cut(tmp_path, label, mark):
    text = f"- {A}\n\t{mark}{label}\n\t\t- {X}\n\t\t  {Y}\n\n\t\t\t- {X}\n\t- {B}\n"
    notes, tally = written(tmp_path, {"a.md": text})
    assert "Penguins" not in notes["a.md"] and "committee" not in notes["a.md"] and A in notes["a.md"] and B in notes["a.md"]
    assert tally.removed["texts of an assistant"] == 1


@pytest.mark.parametrize(
    "label", ["Why AI answers tire me", "My answer", "Answers", "What I asked the AI about its response times"]
)
def test_other_labels_of_an_outline_stay(tmp_path, label):
    notes, _ = written(tmp_path, {"a.md": f"- {label}\n\t- {A}\n\n## {label}\n\n{B}\n"})
    assert A in notes["a.md"] and B in notes["a.md"]


@pytest.mark.parametrize("div", ['<div style="text-align: center">\u2042</div>', '<div align="center">\u2042</div>', "\u2042"])
def test_perplexity_without_its_logo_is_known_by_its_footnotes(tmp_path, div):
    text = f"# {A}\n\n{X} [^1_1][^1_2]\n\n{div}\n\n# {B}\n\n{Y} [^2_1]\n\n[^1_1]: https://a.example\n"
    notes, _ = written(tmp_path, {"a.md": text})
    assert "Penguins" not in notes["a.md"] and "committee" not in notes["a.md"] and A in notes["a.md"] and B in notes["a.md"]


def test_three_stars_and_footnotes_of_ones_own_are_no_chat(tmp_path):
    notes, _ = written(tmp_path, {"a.md": f"# Day\n\n{A}[^1]\n\n\u2042\n\n{B}\n\n[^1]: At noon.\n"})
    assert A in notes["a.md"] and B in notes["a.md"]
