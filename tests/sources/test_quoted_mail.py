"""Mail of others in notes and in mails, in many languages: what announces it and its words go, the owner's stay."""
# ruff: noqa: E501

import pytest

from .test_cases import written

OWN = "I planted forty cloves of garlic behind the shed.\n\nMy sister visits me on Sunday, so I bake."
OTHERS = "Penguins huddle in rotating circles to stay warm.\n\nThe committee wants a new pump before winter."
MAIL = "From: Tom <tom@example.org>\nTo: a@example.org\nSubject: boat\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n"
ANNOUNCED = {
    "en": "On Fri, Nov 3, 2023 at 6:22 PM Anna Berg <anna@example.org> wrote:",
    "wrapped": "On Fri, Nov 3, 2023 at 6:22 PM Anna Berg of the Very Long\nNamed Company <anna@example.org> wrote:",
    "de": "Am Fr., 3. Nov. 2023 um 18:22 Uhr schrieb Anna Berg <anna@example.org>:",
    "fr": "Le ven. 3 nov. 2023 à 18:22, Anna Berg <anna@example.org> a écrit :",
    "pt": "Em sex., 3 de nov. de 2023 às 18:22, Anna Berg <anna@example.org> escreveu:",
    "ru": "пт, 3 нояб. 2023 г. в 18:22, Anna Berg <anna@example.org>:",
    "zh": "Anna Berg <anna@example.org> 于2023年11月3日周五 18:22写道：",
    "ja": "2023年11月3日(金) 18:22 Anna Berg <anna@example.org>:",
    "ko": "2023년 11월 3일 (금) 오후 6:22, Anna Berg <anna@example.org>님이 작성:",
    "fi": "pe 3. marrask. 2023 klo 18.22 Anna Berg (anna@example.org) kirjoitti:",
    "hu": "Anna Berg <anna@example.org> ezt írta (időpont: 2023. nov. 3., P, 18:22):",
    "sv": "Den fre 3 nov. 2023 kl 18:22 skrev Anna Berg <anna@example.org>:",
    "he": "\u202bבתאריך יום ו׳, 3 בנוב׳ 2023 ב-18:22 מאת \u202aAnna Berg\u202c\u200f <\u202aanna@example.org\u202c\u200f>:\u202c",
    "th": "ในวันที่ ศ. 3 พ.ย. 2023 เวลา 18:22 Anna Berg <anna@example.org> เขียนว่า:",
}
HEADERS = {
    "de": "Von: Anna Berg <anna@example.org>\nGesendet: Freitag, 3. November 2023 18:22\nAn: Tom\nBetreff: AW: boat",
    "ja": "差出人: Anna Berg\n送信日時: 2023年11月3日 18:22\n宛先: Tom\n件名: Re: boat",
    "zh": "发件人： Anna Berg\n发送时间： 2023年11月3日 18:22\n收件人： Tom\n主题： 答复: boat",
    "ko": "보낸 사람: Anna Berg <anna@example.org>\n보낸 날짜: 2023년 11월 3일 금요일 18:22\n받는 사람: Tom\n제목: RE: boat",
    "unlisted": "Frá: Anna Berg <anna@example.org>\nSent þann: föstudagur, 3. nóvember 2023 18:22\nTil mín: Tom\nEfni: boat",
}


@pytest.mark.parametrize("line", ANNOUNCED.values(), ids=ANNOUNCED)
def test_what_announces_quoted_lines_goes_with_them(tmp_path, line):
    quote = "\n".join(f"> {part}" for part in OTHERS.split("\n"))
    notes, tally = written(tmp_path, {"a.md": f"{OWN}\n\n{line}\n\n{quote}\n\nI told her so."}, redact=False)
    assert notes["a.md"].split("\n") == [*OWN.split("\n\n"), "I told her so."]
    assert tally.removed["quotes"] == 1


@pytest.mark.parametrize("name", ["a.md", "a.eml"])
@pytest.mark.parametrize(
    "above", [*ANNOUNCED.values(), *HEADERS.values()], ids=[*ANNOUNCED, *(f"headers {name}" for name in HEADERS)]
)
def test_a_mail_without_marks_below_what_announces_it(tmp_path, name, above):
    text = f"{OWN}\n\n{above}\n\n{OTHERS}\n"
    notes, _ = written(tmp_path, {name: (MAIL if name == "a.eml" else "") + text}, redact=False, me="tom@example.org")
    assert list(notes.values()) == [OWN.replace("\n\n", "\n")]


@pytest.mark.parametrize(
    "line",
    [
        "Sent from my iPhone",
        "Von meinem iPhone gesendet",
        "Envoyé de mon iPhone",
        "iPhoneから送信",
        "Отправлено с iPhone",
        "发自我的 iPhone",
    ],
)
def test_what_a_telephone_writes_under_a_mail(tmp_path, line):
    notes, _ = written(tmp_path, {"a.eml": f"{MAIL}{OWN}\n\n{line}\n\n"}, me="tom@example.org")
    assert list(notes.values()) == [OWN.replace("\n\n", "\n")]


@pytest.mark.parametrize(
    "text",
    [
        "In 2023 I decided three things:\nI sell the boat. I sleep more. I call my sister.",
        "Name: Anna Berg <anna@example.org>\nBirthday: 3 May\nLikes: plum cake and my garden.",
        "- 2023, anna@example.org asked me:\n- whether I keep bees",
        "My day on 3 November 2023 at 18:22:\nI planted garlic and my knee hurts.",
    ],
)
def test_own_lists_and_cards_are_no_mail(tmp_path, text):
    notes, _ = written(tmp_path, {"a.txt": text}, redact=False)
    assert "".join(notes["a.txt"].split()) == "".join(text.split())
