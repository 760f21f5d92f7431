"""Chats between people in further layouts: a name and a stamp on a line of their own, months by name, files with a preamble."""
# ruff: noqa: E501

import json

import pytest

from .test_cases import notes_of, written

A, B = "I planted forty cloves of garlic behind the shed.", "My sister visits me on Sunday, so I bake."
X, Y = "Penguins huddle in rotating circles to stay warm.", "The committee wants a new pump before winter."
LAYOUTS = {  # what stands above the chat, before a message of Tom, before one of Anna
    "discord": ("=====\nGuild: Direct Messages\nChannel: anna\n=====\n\n", "[03/11/2023 18:22] Tom\n", "[03/11/2023 18:23] Anna\n"),
    "wechat": ("", "Tom 2023/11/3 18:22:10\n", "Anna 2023/11/3 18:23:10\n"),
    "qq": ("", "2023-11-03 18:22:10 Tom(123456)\n", "2023-11-03 18:23:10 Anna<anna@qq.example>\n"),
    "imessage": (
        "",
        "Nov 03, 2023  6:22:10 PM (Read by them after 1 minute, 2 seconds)\nTom\n",
        "Nov 03, 2023  6:23:10 PM\nAnna\n",
    ),
    "element": ("", "Nov 3, 2023, 18:22:10 - Tom: ", "Nov 3, 2023, 18:23:10 - Anna: "),
    "element-fr": ("", "3 nov. 2023, 18:22:10 - Tom: ", "3 nov. 2023, 18:23:10 - Anna: "),
    "kakao": (
        "Anna 님과 카카오톡 대화\n저장한 날짜 : 2023-11-03\n\n---- 2023년 11월 3일 금요일 ----\n",
        "[Tom] [오후 6:22] ",
        "[Anna] [오후 6:23] ",
    ),
    "kakao-phone": (
        "Anna 님과 카카오톡 대화\n저장한 날짜 : 2023년 11월 3일\n\n",
        "2023년 11월 3일 오후 6:22, Tom : ",
        "2023년 11월 3일 오후 6:23, Anna : ",
    ),
    "line": ("[LINE] Annaとのトーク履歴\n保存日時：2023/11/03 18:22\n\n2023/11/03(金)\n", "18:22\tTom\t", "18:23\tAnna\t"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_owners_messages_stay(tmp_path, layout):
    above, mine, hers = LAYOUTS[layout]
    text = above + "".join(f"{mine}{own}\n\n{hers}{other}\n\n" for own, other in ((A, X), (B, Y)))
    notes, tally = written(tmp_path, {"chat.txt": text}, me="Tom")
    assert list(notes.values()) == [f"{A}\n{B}"] and tally.removed["messages of others"] == 2
    assert "2023" in "".join(notes)  # the day is part of the note's name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_chat_of_an_unknown_owner_is_named(tmp_path, layout):
    above, mine, hers = LAYOUTS[layout]
    text = above + "".join(f"{mine}{own}\n\n{hers}{other}\n\n" for own, other in ((A, X), (B, Y)))
    notes, tally = written(tmp_path, {"chat.txt": text, "b.md": B})
    assert list(notes) == ["b.md"] and "sources.me" in tally.skipped[0]["why"]


def test_reactions_of_signal_and_words_of_telegrams_bots(tmp_path):
    signal = f"[2023-11-03 18:22] Me: {A}  \n(- Anna: 👍, Bo: 🎉 -)\n[2023-11-03 18:23] Anna: {X}\n[2023-11-03 18:24] Me: {B}\n"
    person = {"type": "message", "date": "2023-11-03T18:22:00", "from": "Tom", "from_id": "user1"}
    rows = [{**person, "text": A}, {**person, "text": X, "via_bot": "@gif"}, {**person, "text": Y, "forwarded_from": "News"}]
    telegram = {"name": "Anna", "id": 7, "messages": [*rows, {**person, "from": "Anna", "from_id": "user2", "text": Y}]}
    (tmp_path / "result.json").write_text(json.dumps(telegram))
    (tmp_path / "chat.md").write_text(signal, encoding="utf-8")
    notes, _ = notes_of(tmp_path)
    assert sorted(notes.values()) == [A, f"{A}\n{B}"]


@pytest.mark.parametrize(
    "text",
    [
        "2023-11-03 18:22\nI planted garlic and my knee hurts.\n\n2023-11-04 07:10\nI slept badly and baked a cake.",
        "[2023-11-03 18:22] I planted garlic.\n\n[2023-11-04 07:10] I slept badly.\n\n[2023-11-05 09:00] Ruth came.",
        "Garden\n\nOn 3 November 2023 at 18:22 I planted garlic.\n\nOn Nov 4, 2023 at 7:10 I baked - a plum cake: my best.",
    ],
)
def test_diaries_with_clocks_are_no_chats(tmp_path, text):
    notes, tally = written(tmp_path, {"a.txt": text})
    words = "\n".join(notes.values())
    assert not tally.skipped and "garlic" in words and words.count("\n") >= text.count("\n\n")
