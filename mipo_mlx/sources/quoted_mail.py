"""Mail of others within a note or a mail: forwarded below its headers, or quoted below a line that says who wrote it and when.

Both are known by their form in any language: headers are a few lines `Label: ...` with an address and a clock; a line that
announces a quote has a date, mostly an address, and ends with a colon ("Am 3. Nov. 2023 um 18:22 schrieb Anna <a@b.org>:").
"""

import re

FIRST = (
    "From|Von|De|Da|Van|Från|Fra|Od|От|Від|De la|发件人|寄件者|寄件人|差出人"
    "|送信者|보낸 사람|보낸사람|Kimden|Lähettäjä|Odesílatel|Feladó|Από"
    "|Dari|Từ|จาก|Šalje|מאת|من"
)
FOLLOWING = (
    "Sent|To|Cc|Subject|Date|Reply-To|Gesendet|An|Betreff|Datum|Envoyé|À|Objet|Para|Enviado(?: el| em)?|Enviada em|Asunto|Fecha"
    "|Inviato|A|Oggetto|Data|Verzonden|Aan|Onderwerp|Skickat|Till|Ämne|Assunto|Do|Temat|Wysłano|Кому|Тема|Дата|Отправлено|Sendt|Til|Emne"
    "|发送时间|發送時間|日期|收件人|收件者|抄送|主题|主旨|主題"
    "|送信日時|日付|日時|宛先|件名|보낸 날짜|보낸날짜|받는 사람|받는사람|제목|참조"
    "|Gönderme Tarihi|Gönderildi|Kime|Konu|Lähetetty|Päiväys|Vastaanottaja|Aihe|Odesláno|Komu|Předmět|Predmet|Küldve|Címzett|Tárgy"
    "|Στάλθηκε|Ημερομηνία|Προς|Θέμα|Надіслано|Trimis|Către|Subiect|Đã gửi|Đến|Chủ đề|Dikirim|Kepada|Perihal|Tanggal|Poslano|Za"
    "|Изпратено|До|Относно|נשלח|תאריך|אל|נושא|تاريخ الإرسال|إلى|الموضوع|ส่ง|ถึง|เรื่อง"
)
# What stands above a mail: a line of dashes, or its first header.
FORWARDED = re.compile(
    rf"[ \t]*(?:-{{2,}}+.{{3,60}}?-{{2,}}+|-{{7,}}+|_{{10,}}+|(?:\*\*|\*)?(?:{FIRST})\s?[:：](?:\*\*|\*)?[ \t].+)[ \t]*"
)
HEADERS = re.compile(rf"[\s>*]*(?:{FIRST}|{FOLLOWING})\s?[:：]", re.IGNORECASE)
LABEL = re.compile(r"[\s>*_]*[^\W\d_][^\d:：<>@\n]{0,24}[:：](?:[\s*_]|$)")
ADDRESS = re.compile(r"[<(\[\u202a](?:mailto:)?[^\s<>()@]{1,64}@[^\s<>()@]{1,100}[>)\]\u202c]")
CLOCK = re.compile(r"(?<!\d)\d{1,2} ?[:.h] ?\d\d(?!\d)")
YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
ENDS = re.compile(r"[:：][\s\u200e\u200f\u202a-\u202e*_]*$")
MAY_HAVE = re.compile(
    rf"^{FORWARDED.pattern}$|^[^\n]{{0,200}}@[^\n]{{0,100}}[:：>\])][\s\u200e\u200f\u202a-\u202e*_]*$", re.MULTILINE
)
LONGEST, LINES = 300, 3  # characters and lines of what announces a quote
PHONE = re.compile(  # what telephones write under a mail
    r"\W*(?:(?:Sent|Get Outlook) (?:from|for|via|with) |Von mein\w* .{2,40} gesendet|(?:Von|Mit) .{2,40} gesendet"
    r"|Gesendet (?:von|mit|über) "
    r"|Envoyé (?:de(?:puis)?|à partir de|avec) |(?:Enviado|Enviada) (?:desde|do|de|a partir do|con|pelo) |Obtener Outlook para "
    r"|Inviato "
    r"(?:da|dal) |Verzonden (?:vanaf|met|via) |Verstuurd vanaf |Skickat från |Sendt fra |Lähetetty |Wysłane? z |Odesláno z "
    r"|Elküldve "
    r"|Отправлено (?:с|из) |Надіслано з |iPhone'umdan gönderildi|Dikirim dari |Được gửi từ |Trimis de pe |Στάλθηκε από "
    r"|נשלח מה|أُ?رسلت من |发自我的|發自我的|從我的 ?.{2,20}傳送|.{2,20}から送信|나의 .{2,20}에서 보냄).{0,80}",
    re.IGNORECASE,
)


def may_have_mail(text: str) -> bool:
    """Whether a text can have a mail of another: `mail_end` decides."""
    return bool(MAY_HAVE.search(text))


def is_header(line: str) -> bool:
    """Whether a line can stand above a mail as the first of its headers."""
    return bool(FORWARDED.fullmatch(line))


def mail_end(lines: list[str], begin: int) -> int | None:
    """Where a mail that begins on this line ends: at the next heading or rule, or with the text; None where none begins."""
    if not lines[begin].strip():
        return None
    said = _said(lines, begin)
    if not said and not _has_headers(lines, begin):
        return None
    end = begin + (said or 1)
    if said and next((line for line in lines[end:] if line.strip()), "").lstrip().startswith(">"):
        return None  # what stands behind the quote is the owner's again
    while end < len(lines) and not re.match(r"#{1,6} |-{3,}\s*$|\*{3,}\s*$", lines[end]):
        end += 1
    return end


def _has_headers(lines: list[str], begin: int) -> bool:
    following = [line for line in lines[begin : begin + 8] if line.strip()][:6]
    if FORWARDED.fullmatch(lines[begin]):
        return sum(bool(HEADERS.match(line)) for line in following) >= 2
    if not LABEL.match(lines[begin]) or not ADDRESS.search(lines[begin]):
        return False
    labels = [line for line in following[1:4] if LABEL.match(line)]
    return len(labels) >= 2 and any(CLOCK.search(line) for line in labels)


def _said(lines: list[str], begin: int) -> int:
    """How many lines from this one on say who wrote what follows, with an address and a date; 0 where they do not."""
    text = ""
    for count, line in enumerate(lines[begin : begin + LINES], 1):
        text = f"{text} {line}" if count > 1 else line
        if not line.strip() or len(text) > LONGEST:
            return 0
        if ENDS.search(line):
            return count if ADDRESS.search(text) and YEAR.search(text) and not re.match(r"[\s>]*(?:[-*+#]|\d+[.)]) ", text) else 0
    return 0


def announcement(lines: list[str], begin: int) -> int:
    """The first line of what announces the quote that begins on a line, with a date and a colon; `begin` where nothing does."""
    end = begin
    while end and begin - end < 2 and not lines[end - 1].strip():
        end -= 1
    if not end or not ENDS.search(lines[end - 1]):
        return begin
    start = end - 1
    while start and end - start < LINES and lines[start - 1].strip():
        start -= 1
    for first in range(end - 1, start - 1, -1):
        text = " ".join(lines[first:end])
        if len(text) <= LONGEST and YEAR.search(text) and (CLOCK.search(text) or ADDRESS.search(text)):
            # A date that is wrapped over two lines begins on the upper one.
            above = lines[first - 1] if first > start else ""
            return first - 1 if above and not re.search(r"[.!?:]\s*$", above) and re.search(r"\d", above) else first
    return begin


def without_phone(lines: list[str]) -> list[str]:
    """The lines of a mail without what a telephone wrote under it."""
    kept = list(lines)
    while kept and (not kept[-1].strip() or len(kept[-1]) < 120 and PHONE.fullmatch(kept[-1])):
        kept.pop()
    return kept
