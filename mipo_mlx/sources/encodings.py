"""Legacy encodings: the text of bytes that are not UTF-8, where it is certain, and None where it is not.

charset-normalizer proposes encodings. It errs on texts of a few lines, so each proposal is checked against LANGUAGES: the text
may only have letters of one language, and must have that language's commonest words. The best proposal counts where no other
text comes near it.
"""

import re
import unicodedata
from functools import cache

SAMPLE = 20_000  # bytes with high bits that are looked at
ENOUGH, NEAR = 0.12, 0.7  # share of common words in a text; what a rival's share must stay below, of the best
# Beside the proposals: the encodings of Windows, of old Macs and of DOS in the West and in Central Europe.
ALWAYS = ("cp1252", "cp1250", "mac_roman", "cp1254", "iso8859_2", "cp850", "cp852", "mac_latin2")
LANGUAGES = {  # letters beyond a to z, and common words
    "English": ("éèêëïíóáôöüçñåäøæâ", "a the and of to in is i my that it for was with on at we have not but are this you from"),
    "German": ("äöüßé", "der die das und ich ist nicht ein eine zu den mit für auf sie es im von wir mir dem auch so aber hat"),
    "French": ("àâæçéèêëîïôœùûüÿ", "le la les de des et je un une est pas en que pour dans du mon ma il nous sur au avec mais qui"),
    "Spanish": ("áéíñóúü", "el la los de y que en un una mi con no es por para se lo las del me al su pero más yo como"),
    "Portuguese": ("àáâãçéêíóôõúü", "o a os as de e que em um uma do da não com meu minha para por se é no na mais eu mas ao"),
    "Italian": ("àèéìíîòóùú", "il la le di e che un una in non per con mi sono mia mio ho del della si è i da lo ma più"),
    "Dutch": ("áéëèêïíóöüú", "de het een en ik van in is niet dat op met mijn voor te zijn maar we die als er aan ook naar bij"),
    "Swedish": ("åäöéà", "och jag att det är en ett på som inte för med av min den i till har vi om de så men hon han"),
    "Danish": ("æøåé", "og jeg at det er en et på som ikke for med af min den i til har vi om de så men hun han mig"),
    "Norwegian": ("æøåéòô", "og jeg at det er en et på som ikke for med av min den i til har vi om de så men hun han meg"),
    "Finnish": ("äöåšž", "ja on ei että en se olen mutta kun joka minun oli myös niin hän ovat mä kanssa sitten jos minä vain"),
    "Icelandic": ("áðéíóúýþæö", "og að í á ég er sem ekki það við um en til með var hún hann við mér fyrir mín"),
    "Polish": ("ąćęłńóśźż", "i w na się z nie to że do jest mi o jak a po ale co tak za od już mnie dla mój moja przed kiedy"),
    "Czech": ("áčďéěíňóřšťúůýž", "a v na se je že to s z do jsem ne ale já si o jako po když jsou by můj má který která pro"),
    "Slovak": ("áäčďéíĺľňóôŕšťúýž", "a v na sa je že to s z do som nie ale ja si o ako po keď sú by môj má ktorý pre"),
    "Hungarian": ("áéíóöőúüű", "a az és hogy nem van egy is én meg de ez csak már mint volt ha vagyok minden aki után mert"),
    "Croatian": ("čćđšž", "i u na se je da to ne su sam za s od a što mi ali kao nije moj moja sve još bio kad"),
    "Romanian": ("ăâîșțşţ", "și şi de la în a cu nu pe că un o din mai este sunt am să pentru eu ce dar care mea mi"),
    "Turkish": ("çğıöşüâîi̇", "ve bir bu için de da ben ile çok ne ama daha gibi var kadar olarak sonra en benim her o mi iyi"),
    "Estonian": ("äöõüšž", "ja on ei et ma see mis oma kui ka aga nii siis oli minu mind mu olen ning väga"),
    "Russian": ("абвгдеёжзийклмнопрстуфхцчшщъыьэюя", "и в не на я с что это по но как у к а из мы за то от же так мне все"),
    "Ukrainian": ("абвгґдеєжзиіїйклмнопрстуфхцчшщьюя", "і в не на я з що це по але як у та до за від мені ми а для є й"),
    "Bulgarian": ("абвгдежзийклмнопрстуфхцчшщъьюя", "и в не на аз с че това по но как у да се за от е си ми съм до"),
    "Serbian": ("абвгдђежзијклљмнњопрстћуфхцчџш", "и у не на ја са што то по али као да се за од је сам ми су"),
    "Greek": ("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ", "και το να η ο τα με για του της που δεν στο στη είναι μου θα από τον σε"),
    "Hebrew": ("אבגדהוזחטיכלמנסעפצקרשתךםןףץ", "אני את של על לא זה עם כל גם או הוא היא אבל כי יש אז מה אל ואז כך יותר"),
    "Arabic": ("ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىي", "في من على أن إلى لا ما هذا مع كان كل عن ثم أنا هو التي بعد قبل لي"),
    "Persian": ("ءآأؤئابپتثجچحخدذرزژسشصضطظعغفقکگلمنهوی", "و در به از که این را با است من برای هم یک آن تا بود هر"),
}  # fmt: skip
CHINESE = frozenset("的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里")
TRADITIONAL = frozenset("這個們來為國說時會對著過發後裡沒還讓從經與學開見長門問間現樣點電話書車東")
KOREAN = frozenset("이다는을를에의가고하지도한로나은서기그어사아니자일해대있")
LAST_SIGN = re.compile(rb".*[ -/:-?]", re.DOTALL)  # behind a byte that is no part of a character of several bytes
WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
# A sign that no writing has within a word: ÄŸ, ¿, ³ between letters; "don’t" and "col·legi" are no such cases.
TORN = re.compile(r"[^\W\d_](?![’·\u00ad])[^\x00-\x7f\w](?=[^\W\d_])")
CASE = re.compile(r"[a-zà-öø-ÿ](?=[A-ZÀ-ÖØ-ÞĀĂĄĆĈĊČĎĐĒĔĖĘĚĜĞĠĢŁŃŇŒŘŚŞŠŤŮŹŻŽŸ])(?![A-Z])")  # "FŸr", but not "iPhone"
TYPOGRAPHY = frozenset("‘’‚“”„«»‹›–—…•·°§€£¥©®™½¼¾²³±×÷¡¿ªº¬¶†‡‰\u00a0\u00ad´¨¢¤µ¦")

ODD = frozenset("\u00a0§£¥©®™²³±×÷ªº¬¶†‡‰\u00ad´¨¢¤µ¦€")  # these are rare in writing, and common in a wrong decoding


def legacy(data: bytes) -> tuple[str, str] | None:
    """(text, encoding) of bytes in a legacy encoding; None where the encoding is not certain."""
    sample = _sample(data)
    shares: dict[str, float] = {}
    names: dict[str, str] = {}
    for encoding, text in _proposals(sample):
        names.setdefault(text, encoding)
        shares.setdefault(text, _share(text))
    best = max(shares, key=lambda text: shares[text], default="")
    rivals = [share for text, share in shares.items() if text != best]
    if not best or shares[best] < ENOUGH or max(rivals, default=0.0) > NEAR * shares[best]:
        return None
    try:
        text = data.decode(names[best])
    except UnicodeDecodeError:
        return None
    return None if any("\x7f" <= char <= "\x9f" for char in text) else (text, names[best].replace("cp125", "windows-125"))


def _sample(data: bytes) -> bytes:
    """The lines with bytes above 127, until there are SAMPLE bytes."""
    if len(data) <= SAMPLE:
        return data
    lines, size = [], 0
    for line in data.split(b"\n"):
        if size < SAMPLE and not line.isascii():
            last = LAST_SIGN.match(line, 0, SAMPLE) if len(line) > SAMPLE else None
            lines.append(line[: last.end() if last else SAMPLE])
            size += len(lines[-1]) + 1
    return b"\n".join(lines)


def _proposals(data: bytes) -> list[tuple[str, str]]:
    from charset_normalizer import from_bytes

    guesses = [(match.encoding, str(match)) for match in from_bytes(data, preemptive_behaviour=False, language_threshold=0.0)]
    known = {encoding for encoding, _ in guesses}
    for encoding in ALWAYS:
        if encoding not in known:
            try:
                guesses.append((encoding, data.decode(encoding)))
            except UnicodeDecodeError:
                continue
    order = {encoding: place for place, encoding in enumerate(ALWAYS)}
    return sorted(guesses, key=lambda item: order.get(item[0], len(order)))


def _share(text: str) -> float:
    """How much of a text are common words of the language whose letters it has: 0 for a text of no language."""
    asian = _asian(text)
    if asian is not None:
        return asian
    foreign = [char for char in text if char > "\x7f"]
    letters = {char for char in foreign if char.isalpha()}
    signs = [char for char in foreign if char not in letters]
    if TORN.search(text) or CASE.search(text) or set(signs) - TYPOGRAPHY - _marks():
        return 0.0
    words = WORD.findall(text.replace("’", "'").lower())
    lower = {char for letter in letters for char in letter.lower()}
    fitting = [common for alphabet, common in _languages() if lower <= alphabet]
    most = max((sum(word in common for word in words) for common in fitting), default=0)
    odd = sum(sign in ODD for sign in signs)
    return most / (len(words) + 3 * odd) if most >= 2 else 0.0


def _asian(text: str) -> float | None:
    """The same for Chinese, Japanese and Korean, by their commonest characters; None for a text that has none of these."""
    wide = [char for char in text if char >= "\u2e80"]
    if not wide:
        return None
    if len(wide) < 12 or any(unicodedata.category(char) in ("Co", "Cn") for char in wide):
        return 0.0
    kana = sum("\u3041" <= char <= "\u30ff" for char in wide)
    hangul = sum("\uac00" <= char <= "\ud7a3" for char in wide)
    if kana > 0.25 * len(wide):
        hiragana = sum("\u3041" <= char <= "\u3096" for char in wide)
        return 2.0 * hiragana / len(wide) if not hangul else 0.0
    if hangul > 0.8 * len(wide):
        return 1.5 * sum(char in KOREAN for char in wide) / len(wide)
    return 2.0 * sum(char in CHINESE or char in TRADITIONAL for char in wide) / len(wide) if not hangul + kana else 0.0


@cache
def _languages() -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
    return tuple((frozenset(letters), frozenset(common.split())) for letters, common in LANGUAGES.values())


@cache
def _marks() -> frozenset[str]:
    """Punctuation of East Asian and Arabic writing, and marks of Hebrew and Arabic vowels."""
    ranges = ((0x591, 0x5C7), (0x60C, 0x61F), (0x640, 0x670), (0x200C, 0x200F), (0x3000, 0x303F), (0xFF01, 0xFF65), (0x660, 0x669))
    return frozenset(chr(code) for first, last in ranges for code in range(first, last + 1))
