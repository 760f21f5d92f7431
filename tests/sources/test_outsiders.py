"""Layouts of chats, assistants, exports and plug-ins that outsiders wrote and the readers had missed, and own text like them."""
# ruff: noqa: E501

import json

import pytest

from .test_cases import written

OWN = "I dig the second bed on Saturday, as my father did."
OTHERS = "We shall talk about the weather of last week."
ANSWER = "A splendid plan, and two hours will be enough for it."

TALKS = {
    "telegram, copied": "Mila, [05.01.2025 10:00]\n{0}\n\nKarl, [05.01.2025 10:02]\n{1}\n\nMila, [05.01.2025 10:04]\n{0}\n",
    "telegram, copied with words": "Mila N, [5 Jan 2025 at 10:00:12]:\n{0}\n\nKarl, [5 Jan 2025 at 10:02:40]:\n{1}\n",
    "discord, copied": "mila — 05/01/2025 10:00\n{0}\nkarl — 05/01/2025 10:02\n{1}\nmila — Today at 10:04\n{0}\n",
    "discord, exported": "=====================\nGuild: Bees\nChannel: general\n=====================\n\n[05/01/2025 10:00] mila\n{0}\n\n"
    "[05/01/2025 10:02] karl (pinned)\n{1}\n\n{{Attachments}}\nhttps://cdn.discordapp.com/a.png\n\n[05/01/2025 10:04] mila\n{0}\n\n"
    "=====================\nExported 3 message(s)\n=====================\n",
    "teams, copied with dates": "Mila N\n1/5/2025 9:02 AM\n{0}\n\nKarl\n1/5/2025 9:05 AM\n{1}\n\nMila N\n1/5/2025 9:06 AM\n{0}\n",
    "slack, copied": "Mila N\n  9:02 AM\n{0}\nKarl\n  9:05 AM\n{1}\nMila N\n  9:06 AM\n{0}\n",
    "teams, copied": "[Yesterday 9:02 AM] Mila N\n{0}\n[Yesterday 9:05 AM] Karl\n{1}\n[Yesterday 9:06 AM] Mila N\n{0}\n",
    "imessage": "Jan 05, 2025  9:01:22 AM\n+14155550100\n{0}\n\nJan 05, 2025  9:03:10 AM (Read by them after 2 minutes)\nMe\n{1}\n\n"
    "Tapbacks:\nLoved by +14155550100\n\nJan 05, 2025  9:05:00 AM\n+14155550100\n{0}\n",
    "signal by sigtop": "Conversation: Mila (+491701112223)\n\nFrom: Mila (+491701112223)\nType: incoming\nSent: Mon, 06 Jan 2025 19:01:22 +0100\n"
    "Received: Mon, 06 Jan 2025 19:01:23 +0100\n\n{0}\n\nFrom: You\nType: outgoing\nSent: Mon, 06 Jan 2025 19:05:02 +0100\n\n{1}\n",
    "whatsapp, edited": "03/02/2025 18:05 - Mila: {0}\n03/02/2025 18:09 - Karl: {1} <Mensagem editada>\n03/02/2025 18:10 - Mila: {0}\n",
}


@pytest.mark.parametrize("layout", TALKS)
def test_short_talks_of_people(tmp_path, layout):
    notes, _ = written(tmp_path, {"chat.txt": TALKS[layout].format(OTHERS, OWN)}, me="Karl")
    assert "\n".join(notes.values()) == OWN


def test_a_journey_with_places_and_clocks_is_no_talk(tmp_path):
    days = [("2025-01-05 10:00", "Lisbon"), ("2025-01-06 09:30", "Porto"), ("2025-01-07 21:00", "Lisbon")]
    text = "\n\n".join(f"[{day}] {place}\n{OWN}" for day, place in days)
    notes, tally = written(tmp_path, {"a.md": text})
    assert notes["a.md"].count(OWN) == 3 and not tally.skipped
    hours = "\n\n".join(f"{place}\n{hour}\n{OWN}" for place, hour in (("Home", "7:30"), ("Office", "9:00"), ("Home", "18:30")))
    notes, tally = written(tmp_path, {"a.md": hours})
    assert notes["a.md"].count(OWN) == 3 and not tally.skipped


ASSISTANTS = {
    "one turn each, said": "You said\n{0}\n\nCopilot said\n{1}\n",
    "one turn each, names alone": "User\n{0}\n\nChatGPT\n{1}\n",
    "said in Spanish": "Has dicho\n{0}\n\nClaude dijo\n{1}\n",
    "front matter with a model": "---\nmodel: gpt-4o\nsystem_commands: ['I am helpful']\n---\n\n{0}\n\n## role::assistant (gpt-4o)\n\n{1}\n",
    "front matter with a prompt": "---\nprompt: short\nassistant: yes\n---\n\n**User:** {0}\n\n**Gemini:** {1}\n",
    "questions and answers": "Q: {0}\n\nA: As an AI language model I have no hands.\n\nQ: {0}\n\nA: {1}\n",
    "one sign each": "### 👤 User\n\n{0}\n\n### 🤖 DeepSeek | V3\n\n{1}\n",
    "another company": "**You**\n\n{0}\n\n**Kagi Assistant**\n\n{1}\n",
    "names alone, another company": "You\n{0}\n\nMeta AI\n{1}\n",
    "an outline": "- ## With Claude\n\t- **Me**\n\t\t- {0}\n\t- **Claude**\n\t\t- {1}\n",
}


@pytest.mark.parametrize("layout", ASSISTANTS)
def test_short_talks_with_assistants(tmp_path, layout):
    notes, tally = written(tmp_path, {"a.md": ASSISTANTS[layout].format(OWN, ANSWER)})
    assert OWN in notes["a.md"] and "splendid" not in notes["a.md"] and "helpful" not in notes["a.md"]
    assert tally.removed["turns of an assistant"]


def test_what_an_assistant_wrote_is_folded(tmp_path):
    folded = "<details>\n<summary>{0}</summary>\n\n{1}\n\n</details>\n"
    text = f"{OWN}\n\n{folded.format('ChatGPT answer', ANSWER)}\n{folded.format('More of mine', 'I sing.')}"
    notes, tally = written(tmp_path, {"a.md": text})
    assert "splendid" not in notes["a.md"] and "I sing." in notes["a.md"] and tally.removed["texts of an assistant"] == 1


def test_own_questions_and_keys_of_front_matter_stay(tmp_path):
    files = {"a.md": f"Q: Why do I stay?\nA: {OWN}\n", "b.md": f"---\nmodel: life\nprompt: What today?\n---\n{OWN}\n"}
    notes, tally = written(tmp_path, files)
    assert OWN in notes["a.md"] and notes["b.md"] == OWN and not tally.removed["turns of an assistant"]


@pytest.mark.parametrize(
    "text",
    [
        f"**Mila N** 0:03\n{OTHERS}\n\n**Karl** 0:14\n{OTHERS}\n",
        f"Speaker 1  0:01\n{OTHERS}\n\nSpeaker 2  0:09\n{OTHERS}\n",
        f"[00:00:01] {OTHERS}\n[00:00:05] {OTHERS}\n[00:00:09] {OTHERS}\n",
        f"Interviewer: {OTHERS}\n\nImker: {OTHERS}\n\nInterviewer: {OTHERS}\n\nImker: {OTHERS}\n",
        f"**Host:** {OTHERS}\n\n**Guest:** {OTHERS}\n\n**Host:** {OTHERS}\n",
        f"# Meeting\n\n- {OTHERS}\n\nTranscribed by https://otter.ai\n",
        f"# Meeting\n\n- {OTHERS}\n\nChat with meeting transcript: https://notes.granola.ai/d/abc\n",
        f"# Guide\n\n{OTHERS}\n\nSaved from NotebookLM\n",
        f"Thread by @gardenguru:\n\n1/ {OTHERS}\n2/ {OTHERS}\n",
        f"r/gardening • Posted by u/rosefan 3 years ago\n{OTHERS}\n\nu/pruner · 3 yr. ago\n{OTHERS}\n",
        f"dang 3 hours ago | parent | next [–]\n\n{OTHERS}\n\ntptacek 2 hours ago | prev | next [–]\n\n{OTHERS}\n",
        f"---\nsource: https://example.org/soup\n---\n{OTHERS.replace('We shall', 'To')}\n",
        f"---\ntype: highlights\nsource: https://example.org/soup\n---\n=={OTHERS}==\n",
        f"#separator:tab\n#html:true\nfront\t{OTHERS}\n",
        f'!!! quote "Seneca"\n    {OTHERS}\n',
        f'{{{{< quote author="Seneca" >}}}}\n{OTHERS}\n{{{{< /quote >}}}}\n',
        f"---\ncitekey: smith2020\n---\n> [!abstract] Abstract\n> {OTHERS}\n",
    ],
)
def test_short_texts_of_others(tmp_path, text):
    notes, _ = written(tmp_path, {"a.md": text, "b.md": OWN})
    assert "weather" not in "\n".join(notes.values()) and notes["b.md"] == OWN


@pytest.mark.parametrize(
    "text",
    [
        f"Guest list:\nPeter and Maria\n\nHost: {OWN}\n",
        f"??? note\n    {OWN}\n\n!!! tip\n    And so I do.\n",
        f"<<<<<<< HEAD\n{OWN}\n=======\nI dig it on Sunday.\n>>>>>>> 1a2b3c4 (vault backup)\n",
        f"{OWN}\n\nsequenceDiagram\n    Alice->>Bob: Hello\n",
        f"---\nsource: https://example.org/soup\n---\n{OWN}\n",
        f"- {OWN}\n- ((xYz_12345))\n",
        f"created: 20250105\ntitle: Bed\ntype: text/vnd.tiddlywiki\n\n{OWN}\n",
        f"- {OTHERS}\n  ls-type:: annotation\n  hl-page:: 3\n  id:: 65a1b2c3-1111-2222-3333-444455556666\n\t- {OWN}\n",
    ],
)
def test_own_words_within_the_marks_of_programs(tmp_path, text):
    notes, _ = written(tmp_path, {"a.md": text})
    kept = "\n".join(notes.values())
    assert OWN in kept and not any(mark in kept for mark in ("!!!", "???", "<<<", ">>>", "->>", "((", "tiddly", "weather"))


def test_a_diagram_in_a_fence_ends_with_it(tmp_path):
    fences = f"I draw it like this:\n```mermaid\ngraph TD\nA --> B\n```\n{OWN}\n\n~~~\nsequenceDiagram\nA->>B: Hi\n~~~\n\nI sing.\n"
    notes, tally = written(tmp_path, {"a.md": fences})
    assert notes["a.md"] == f"{OWN}\nI sing." and tally.removed["code blocks"] == 2


CANVAS = {"nodes": [{"id": "a", "type": "text", "text": OWN}, {"id": "b", "type": "file", "file": "x.md"}, 7], "edges": []}
ROAM = [{"title": "Bed", "children": [{"string": OWN, "children": [{"string": "> " + OTHERS}, {"string": "```code```"}]}]}]
STANDARD = {"version": "004", "items": [{"uuid": "1", "content_type": "Note", "content": {"title": "Bed", "text": OWN}}]}
GROK = {
    "conversations": [
        {
            "conversation": {"title": "Bed"},
            "responses": [
                {"response": {"message": OWN, "sender": "human"}},
                {"response": {"message": ANSWER, "sender": "ASSISTANT"}},
            ],
        }
    ]
}
SLACK = [
    {
        "type": "message",
        "subtype": "channel_join",
        "user": "U1",
        "text": "<@U1> has joined",
        "ts": "1",
        "user_profile": {"real_name": "Karl"},
    },
    {"type": "message", "user": "U2", "text": OTHERS, "ts": "2", "user_profile": {"real_name": "Mila N"}},
    {"type": "message", "user": "U1", "text": OWN, "ts": "3", "user_profile": {"real_name": "Karl"}},
]
MATRIX = {"messages": [{"sender": "@mila:x.org", "content": {"body": OTHERS}}, {"sender": "Karl", "content": {"body": OWN}}]}
BODIES = [{"sender": "Mila N", "body": OTHERS}, {"sender": "Me", "body": OWN}]
GOOGLE = {"messages": [{"creator": {"name": "Mila N"}, "text": OTHERS}, {"creator": {"name": "Karl"}, "text": OWN}]}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Board.canvas", CANVAS),
        ("roam.json", ROAM),
        ("Standard Notes Backup and Import File.txt", STANDARD),
        ("prod-grok-backend.json", GROK),
        ("general/2025-01-05.json", SLACK),
        ("element.json", MATRIX),
        ("signal.json", BODIES),
        ("Takeout/Google Chat/messages.json", GOOGLE),
    ],
)
def test_exports_of_further_programs(tmp_path, name, values):
    notes, tally = written(tmp_path, {name: json.dumps(values)}, me="Karl")
    assert "\n".join(notes.values()).removeprefix("- ") == OWN and not tally.skipped


def test_an_encrypted_export_is_named(tmp_path):
    secret = {"items": [{"uuid": "1", "content_type": "Note", "content": "004:aa"}]}
    _, tally = written(tmp_path, {"backup.txt": json.dumps(secret), "b.md": OWN})
    assert "encrypted" in tally.skipped[0]["why"]


@pytest.mark.parametrize(
    ("mark", "note"),
    [
        ("Your Highlight on page 1", "Your Note on page 1"),
        ("Ihre Markierung auf Seite 1", "Ihre Notiz auf Seite 1"),
        ("Votre surlignement", "Votre note sur la page 1"),
    ],
)
def test_own_remarks_among_highlights(tmp_path, mark, note):
    entry = "Book (Author)\n- {} | Location 1-2 | Added on Sunday, 5 January 2025\n\n{}\n==========\n"
    notes, _ = written(tmp_path, {"My Clippings.txt": entry.format(mark, OTHERS) + entry.format(note, OWN)})
    assert notes["My Clippings.txt"] == OWN


@pytest.mark.parametrize(
    "head",
    [
        "<!-- saved from url=(0030)https://example.org/roses -->",
        "<!--\n Page saved with SingleFile\n url: https://example.org\n-->",
        "<!-- Mirrored from example.org/roses by HTTrack -->",
    ],
)
def test_pages_that_a_browser_saved(tmp_path, head):
    _, tally = written(tmp_path, {"a.html": f"<!DOCTYPE html>{head}<html><body><p>{OTHERS}</p></body></html>", "b.md": OWN})
    assert tally.left_alone["articles clipped from the web"] == 1


@pytest.mark.parametrize("sign", ["\u202e", "\u202d", "\u2066"])
def test_no_sign_turns_the_order_of_a_text(tmp_path, sign):
    notes, _ = written(tmp_path, {"a.md": f"{OWN[:20]}{sign}{OWN[20:]}"})
    assert notes["a.md"] == OWN
