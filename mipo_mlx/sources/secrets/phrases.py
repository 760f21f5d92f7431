"""The words that announce a secret, in about twenty languages. Each entry: what is announced, first words, what follows them.

`find` reads a text word by word and looks each up, so that the number of languages costs no time. A phrase is a first word in
lower case and a pattern for the rest of it; `strong` says that a plain word behind it is a secret too, as in "password: bluebell".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from . import ACCOUNT, CARD, CODE, IDENTITY, KEY, PASSWORD, words_of


@dataclass(frozen=True)
class Phrase:
    kind: str
    rest: re.Pattern
    strong: bool = False
    several: bool = False  # a list of values may follow
    sure: bool = False  # only behind a colon, an equals sign or an arrow


PLACES = (
    r"doors?|front door|back door|gates?|garage|shed|house|flat|apartment|building|lobby|office|cottage|safe|vault|lock"
    r"|padlock|locker|alarm|keypad|bike|barn|cellar|box|key ?safe|lock ?box"
    r"|schlie[ßs]+fach|spind|hausflur|treppenhaus|hinterhof|citofono|\w{2,12}(?:t[üu]r|schlo(?:ss|ß)|garage|slot|deur|d[öo]rr|safe|tresor)"
    r"|interphone|parking|kluisje|porten|d[öo]rren|grinden|garaget|larmet|local v[ée]lo|cave"
    r"|bo[iî]te [àa] cl[ée]s?|haust[üu]r|t[üu]r|tor|haus|keller"
    r"|schl[üu]sselsafe|tresor|schloss|garage|wohnung|b[üu]ro|schließfach|alarmanlage|eingang"
    r"|porte|portail|immeuble|maison|coffre(?:-fort)?|cadenas|alarme|entr[ée]e|acc[èe]s|puerta|portal|port[óo]n|garaje"
    r"|caja fuerte|casa|alarma|acceso|entrada|candado"
    r"|portone|porta|cancello|cassaforte|allarme|ingresso|lucchetto|deur|poort|kluis|slot|schuur|port[ãa]o|garagem|cofre"
    r"|alarme|cadeado"
    r"|drzwi|bramy|furtki|gara[żz]u|alarmu|sejfu|domofonu|klatki|домофона|двери|подъезда|ворот|сейфа|сигнализации|калитки"
    r"|гаража"
)
SUBJECTS = (  # what a code can be for, beside a place
    r"s[ée]curit[ée]|secours|v[ée]rification|r[ée]cup[ée]ration|confirmation|d[ée]verrouillage|activation|seguridad"
    r"|verificaci[óo]n|recuperaci[óo]n|respaldo|desbloqueo|activaci[óo]n"
    r"|sicurezza|verifica|recupero|sblocco|attivazione|seguran[çc]a|verifica[çc][ãa]o|recupera[çc][ãa]o|desbloqueio"
    r"|weryfikacyjny|odzyskiwania|bezpiecze[ńn]stwa|zapasowe"
    r"|cartes? ?(?:bleue|bancaire)?|banque|tarjeta|banco|carta|bancomat|cart[ãa]o|karty|karte|card|cajero|atm|geldautomat\w*"
    r"|карты|подтверждения"
    r"|восстановления|доступа|безопасности|pin|puk|wifi|wi-fi"
)
SMALL = (
    r"(?:(?:for|to|of|on|at|the|my|our|from|in|vom|von|der|des|dem|den|f[üu]r|zum|zur|am|de|del|du|des|la|le|les|l['’]"
    r"|d['’]|do|da|dos|di|della|dell['’]|van|voor|het|od|z|от|для|к|на|у)[ ']?)"
)
CODES = (
    r"(?:[ -]?(?:pin|pass)?codes?|[ -]?key ?codes?|[ -]?pins?|[ -]?combinations?|[ -]?combos?|[ -]?keypad|[ -]?(?:number"
    r"|nummer)(?= ?(?:is|:)))"
)
NUMBER = (
    r"(?:[ .-]{0,2}(?:number|numbers|num|no\.?|nr\.?|n[°ºo]\.?|№|#|id|nummer|numéro|número|numero|nr|номер|号|card|card "
    r"number|details)){0,2}"
)

TABLE: tuple[tuple[str, str, str, str], ...] = (  # (kind, "strong", "several", "sure" or "", first words, the rest of the phrase)
    (PASSWORD, "strong",
        "password passwords lösenordet lösenorden passordet "
        "passwd passcode passphrase passwort passwörter kennwort kennwörter pwd pw psw wachtwoord "
        "wachtwoorden lösenord "
     "lösenordet passord adgangskode adgangskoden jelszó jelszava contraseña contraseñas contrasenya senha senhas heslo "
     "пароль пароля паролем пароли парола şifre şifresi şifrem sifre parolası wachtzin kodeord lozinka zaporka geslo "
     "slaptažodis "
     "κωδικός κωδικο κωδικού συνθηματικό סיסמה סיסמא पासवर्ड sandi mdp codeword losenord motdepasse", r""),
    (PASSWORD, "strong", "hasło hasła hasłem haslo",
        r"(?: (?:do|od|z|na|w|dla) \w{1,20}(?: \w{2,20}(?= to ))?| wi-?fi){0,2}(?: to(?= ))?"),
    (PASSWORD, "strong", "lösen", r" (?:till|för|wi-?fi|wlan|router)(?: \w{2,20})?"),
    (PASSWORD, "strong", "salasana salasanan salasanani parool", r"(?: on(?= ))?"),
    (PASSWORD, "strong", "mot mots", r" de passe"),
    (PASSWORD, "strong", "p", r"/w\b"),
    (PASSWORD, "strong", "pass", r"[ -](?:word|phrase|code)s?"),
    (PASSWORD, "strong", "key", r"[ -]?phrase"),
    (PASSWORD, "strong", "phrase", r" (?:secr[èe]te|de passe)"),
    (PASSWORD, "strong", "frase palavra kata mật كلمة",
        r"[ -](?:segreta|secreta|de contraseña|de acceso|de paso|passe|chave|sandi|khẩu|السر|المرور)"),
    (PASSWORD, "strong", "parola", r" d['’]ordine"),
    (PASSWORD, "strong",
        "wifi wlan wpa network netzwerk router security wep wi", r"(?:-?fi)?[ -]?(?:key|schl[üu]ssel|sleutel|code|nyckel)"),
    (PASSWORD, "strong", "code código codigo codice kod kód код",
        r" (?:du |de |del |do |da |от |для |till |voor |f[üu]rs? )?(?:wi-?fi|wlan|вай-?фая)(?!\w)"),
    (PASSWORD, "strong", "netzwerkschlüssel wlanschlüssel wifisleutel sicherheitsschlüssel netwerksleutel", r""),
    (PASSWORD, "strong",
        "clé clave chiave chave klucz ключ",
            r" (?:(?:de|del|du|della|do|da|d['’]|от|la|le|l['’]) ?){0,2}(?:wi-?fi|wlan|r[ée]seau|router|red|rete|rede"
            r"|acceso|acc[èe]s|sécurité|correo|banco|вай-?фая)"),
    (PASSWORD, "", "pass parola parole losung clave ww kw kennw passw contr", r""),
    (PASSWORD, "", "key", r""),
    (KEY, "", "token tokens jeton secret secrets apikey api_key credential ключ clé schlüssel", r""),
    (KEY, "",
        "api access secret private client consumer app auth signing encryption master shared service session license "
        "licence product activation serial windows office",
     r"[ _-]?(?:api[ _-]?|access[ _-]?|secret[ _-]?|base[ _-]?)?(?:key|secret|token|serial|number)s?(?:[ _-]base)?\b"),
    (KEY, "", "seriennummer lizenzschlüssel produktschlüssel api-schlüssel zugangsschlüssel serial", r""),
    (KEY, "", "totp otp fa mfa authenticator", 
        r"[ -](?:seed|secret|key|setup key|geheim(?:nis)?|schlüssel|sleutel|clave|clé|chiave|chave|klucz)"),
    (CODE, "",
        "pin pini pins geheimzahl geheimnummer pinnummer pincode pinkod pinkoden portkod portkoden pinkode "
        "pinkoodi пин пинкод пинкода puk",
            r"(?:[ -]?(?:code|codes|number|nummer|kodu?|kode|koden|koodi|код|кода|no\.?))?"),
    (CODE, "",
        "code codes kod kody kód código códigos codigo codice codici codul kode koda kood код коды κωδικός",
            rf" {SMALL}{{0,3}}(?:\w+ ){{0,2}}?(?:{PLACES}|{SUBJECTS})(?!\w)"),
    (CODE, "sure", "code codes kod koden kód código codigo codice код", rf" (?:(?:till|til|na) |{SMALL}){{1,3}}[\w-]{{2,24}}"),
    (CODE, "", "code codes", r" (?:secret|confidentiel|pin|puk)"),
    (CODE, "",
        "combination combinación combinaison combinazione kombination zahlenkombination",
            rf"(?: {SMALL}{{0,3}}(?:\w+ ){{0,1}}?(?:{PLACES})(?!\w))?"),
    (CODE, "", "clave clé chiave senha contraseña chave", rf" {SMALL}{{1,3}}(?:{PLACES}|{SUBJECTS})(?!\w)"),
    (CODE, "sure",
        "door gate lock locker padlock alarm safe vault garage bike garagentor "
        "hoftor gartentor kellertür kofferschloss fahrradschloss "
        "vorhängeschloss vorhangschloss hängeschloss spindschloss radschloss zahlenschloss "
        "tür haustür tor schloss tresor safe alarmanlage "
        "porte portail cadenas coffre puerta portal candado portone porta cancello "
     "lucchetto deur slot kluis brama drzwi домофон подъезд сейф shed keysafe intercom", r"(?: (?:lock|door|safe|box))?"),
    (CODE, "sure", "your dein ihr votre ton su tu tuo seu twój ваш твой je uw", r" (?:\w+ )?(?:code|código|codice|kod|код)"),
    (CODE, "",
        "digicode türcode torcode haustürcode eingangscode zugangscode klingelcode alarmcode keypad "
        "lockbox keybox keysafe padlock schlüsselbox schlüsselsafe türschloss",
            r"(?:(?: [\w ]{0,40})?, ?(?:combo|combination|code)|[ -]?(?:code|pin|combination))?"),
    (CODE, "sure",
        "entsperren entsperrt unlock unlocks débloquer déverrouiller desbloquear sbloccare ontgrendelen odblokować", r""),
    (CODE, "", "key lock", r" ?(?:box|safe)(?: code)?"),
    (CODE, "",
        "alarmanlage haustür haustüre wohnungstür kellertür garagentor hoftor gartentor kofferschloss fahrradschloss "
        "vorhängeschloss zahlenschloss fahrstuhl tor tür hausflur treppenhaus hinterhof "
        "schließfach spind tiefgarage tresor schlüsselbox schlüsseltresor briefkasten portail interphone "
        "immeuble portal cancello brama домофон подъезд", r"(?: \w{2,20}){0,2}?[ -]"
            r"(?:zahlen)?(?:code|pin|kod|kombination|combinazione|код)"),
    (CODE, "", "security digits number numbers ziffern zahlen chiffres dígitos cifras números cifre numeri cijfers",
            r"(?: \w+)? (?:on|from|auf|hinten|au|al|en|no|sul|op|aan) (?:(?:the|der|el|la|le"
            r"|il|de) )?(?:back|\w*rückseite|dos|verso|reverso|dorso|retro|achterkant)(?: of (?:the |my )?card)?"),
    (CODE, "",
        "door gate garage alarm entry entrance access lock padlock bike locker safe keypad building lobby intercom "
        "unlock screen phone device security verification "
     "confirmation authentication auth login sign activation voicemail card vault sim shed house front back tür tor tresor schloss "
     "puerta", rf"(?: (?:door|gate|lock|safe|unlock|screen|in|security))?{CODES}"),
    (CODE, "", " ".join(f"{head}{tail}" for head in (
        "tür haustür tor hoftor schrank spind koffer schließfach tiefgaragen "
        "garagen alarm zugangs eingangs schloss safe tresor sicherheits bestätigungs prüf freischalt "
        "aktivierungs entsperr einmal deur poort garage "
        "toegangs kluis beveiligings verificatie slot voordeur dörr port larm grind dør säkerhets verifierings ovi kapu "
        "belépő kapı doğrulama").split() for tail in ("code", "codes", "kod", "koden", "kode", "koodi", "kód", "pin")), r""),
    (CODE, "", "pin",
        rf"(?: {SMALL}{{1,2}}(?:sim|phone|handy|telefon\w*|telem[óo]vel|m[óo]vil|mobile|card|kart\w*|carte|carta|tarjeta"
        rf"|cart[ãa]o|kaart))"),
    (CODE, "", "kapı doğrulama güvenlik ověřovací bezpečnostní", r" (?:kodu|şifresi|kód)"),
    (CODE, "",
        "cvv cvv2 cvc cvc2 csc kartenprüfnummer prüfziffer prüfnummer cryptogramme",
            r"2?(?: (?:(?:der|de la|della|of the) \w{3,12}|code|visuel|no\.?|number))?"),
    (CODE, "", "otp tan mtan passcode smscode verifizierungscode", r"(?: code)?"),
    (CODE, "", "one", r"[ -]time[ -](?:code|password|passcode|pin)"),
    (CODE, "several",
        "recovery backup scratch emergency rescue restore bitlocker filevault 2fa mfa",
            r"(?:[ -](?:2fa|recovery|backup|login))?[ -](?:codes?|keys?|recovery keys?)"),
    (CODE, "several", "bitlocker", r""),
    (CODE, "several",
        "wiederherstellungscode wiederherstellungscodes wiederherstellungsschlüssel backupcode backupcodes backup-codes "
        "notfallcode notfallcodes ersatzcodes herstelcode herstelcodes återställningskod "
     "återställningskoder", r""),
    (CODE, "several",
        "codes code códigos código codici codice kody kod коды",
            r" (?:de |di |do |del |d['’])?(?:secours|r[ée]cup[ée]ration|recuperaci[óo]n|respaldo|seguridad|backup"
            r"|emergencia|recupero|emergenza|recupera[çc][ãa]o|odzyskiwania|zapasowe|восстановления)"),
    (CODE, "several", "резервные резервный", r" код\w*"),
    (CARD, "",
        "card credit debit kartennummer kreditkarte kreditkartennummer debitkarte visa mastercard amex carte tarjeta "
        "carta kaart kaartnummer cartão karta номер",
            rf"(?:[ -](?:card|karte|bleue|bancaire|de cr[ée]dito|di credito|карты)){{0,1}}{NUMBER}"),
    (CARD, "", "numéro número numero", r" (?:de |della |di )(?:carte|tarjeta|carta|cartão)(?: bleue| bancaire)?"),
    (ACCOUNT, "",
        "iban account acct acc kto kontonummer kontonr konto bankkonto compte cuenta conto rekening rekeningnummer conta "
        "счёт счет bankleitzahl blz clabe kontonummeret tilinumero",
            rf"(?: (?:bancaria|bancaire|corrente|bancario|bank))?{NUMBER}"),
    (ACCOUNT, "",
        "sort routing aba bsb bank transit branch", r"(?:[ -](?:code|account))?(?: account)?(?: ?(?:number|no\.?|nr\.?|#))?"),
    (IDENTITY, "",
        "passport passports passnummer reisepass reisepassnummer passeport pasaporte passaporto passaporte paspoort "
        "paspoortnummer paszport paszportu pas pass паспорт паспорта "
        "загранпаспорт загранпаспорта passinumero útlevél", NUMBER + r"(?: серия)?"),
    (IDENTITY, "",
        "ssn sin nino dni nie nif cif nir cpf cnpj rg rut curp rfc cuit cuil bsn burgerservicenummer sofinummer pesel "
        "nip dowód cnp egn amka tckn aadhaar aadhar pan nric fin mykad ahv avs svnr sozialversicherungsnummer "
     "rentenversicherungsnummer versicherungsnummer versichertennummer versichertennr "
     "krankenversichertennummer krankenkassennummer krankenkasse "
     "personnummer fødselsnummer "
     "samordningsnummer cpr henkilötunnus hetu ppsn pps perso personalausweis personalausweisnummer ausweisnummer "
     "ausweis rodné снилс инн tfn utr ein tin itin "
     "steuernummer steuer st idnr steueridentifikationsnummer ust ustidnr umsatzsteuer finanzamt medicare nhs ihi "
     "medicaid siret siren vat abn emso jmbg oib krs regon isikukood asmens",
         rf"(?:[-. ](?:id|idnr|idnummer|nr|nummer|no|kimlik|card|číslo|osobisty|kodas|kort|identifikationsnummer"
         rf"|identnummer)){{0,2}}{NUMBER}"),
    (IDENTITY, "",
        "social national tax driving driver drivers identity id insurance health policy membership member patient "
        "citizen resident vat employer alien voter personal green military student",
     r"(?:['’]?s?)(?: (?:security|insurance|identification|identity|id|payer|policy|card|licen[cs]e|health|service"
     r"|registration|member|reference))?(?: (?:number|no\.?|nr\.?|id|card|#|licen[cs]e)){1,2}(?: no\.?| number)?"),
    (IDENTITY, "",
        "driving driver drivers führerschein führerscheinnummer permis rijbewijs rijbewijsnummer patente cnh "
        "водительское prawo licencia carta carné carnet",
            rf"(?:['’]?s?)(?: (?:licen[cs]e|de conduire|de conducir|jazdy|di guida|de conduç[ãa]o"
            rf"|удостоверение))?{NUMBER}"),
    (IDENTITY, "", "national", r" insurance(?: number| no\.?)?"),
    (IDENTITY, "", "social", r" security(?: number| no\.?)?"),
    (IDENTITY, "",
        "numéro número numero n num nº",
            r"[°º]? ?(?:de |d['’]|della |di |do )?(?:s[ée]curit[ée] sociale|s[ée]cu|fiscal|fiscale|seguridad social"
            r"|afiliaci[óo]n|identifica[çc][ãa]o|identidad|identidade|previdenza|passeport|pasaporte|contribuinte|utente"
            r"|sozial)"),
    (IDENTITY, "",
        "codice partita carte tarjeta carta cédula cedula documento cartão karta libretto tessera código tc t",
            r"\.?(?:c\.?)?(?: (?:fiscale|iva|vitale|sanitaria|d['’]identità|nationale? d['’]identité|d['’]identité|de "
            r"identidad|de cidadão|tożsamości|kimlik)){0,2}" + NUMBER),
    (IDENTITY, "", "свидетельство полис", r"(?: \w+)?" + NUMBER),
)  # fmt: skip
CJK: tuple[tuple[str, str], ...] = (
    (PASSWORD, r"密码|密碼|口令|パスワード|合言葉|暗号キー|비밀번호|비번|암호|รหัสผ่าน"),
    (CODE,
        r"验证码|驗證碼|门禁码|取件码|恢复码|安全码|备用码|暗証番号|パスコード|認証コード|確認コード|ドアコード|リカバリーコード|セキュリティコード"
        r"|인증번호|보안코드|복구 ?코드|개인 ?식별 ?번호"),
    (IDENTITY,
        r"身份证(?:号码?)?|身分證(?:字號)?|护照(?:号码?)?|護照(?:號碼?)?|社保(?:卡)?号|驾驶证号?|税号|マイナンバー|個人番号|パスポート(?:番号)?|旅券番号|免許証番号|保険証番号|年金番号"
        r"|주민등록번호|주민번호|여권번호|여권|운전면허번호"),
    (ACCOUNT, r"账号|帳號|银行账户|口座番号|계좌번호|계좌"),
    (CARD, r"卡号|卡號|カード番号|카드번호"),
)  # fmt: skip
STEMS = ("şifre", "парол", "hasł", "jelsz", "salasan")  # of languages that bend the word
ENDINGS = ("password", "passwort", "kennwort", "wachtwoord", "lösenord", "passord", "passphrase", "passcode")
WIDE = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def _phrases() -> dict[str, list[Phrase]]:
    by_head: dict[str, list[Phrase]] = {}
    for kind, mark, heads, rest in TABLE:
        phrase = Phrase(kind, re.compile(rest), mark == "strong", mark == "several", mark == "sure")
        for head in heads.split() + [head[:-5] + "r" for head in heads.split() if head.endswith("nummer")]:
            by_head.setdefault(head, []).append(phrase)
    return by_head


PHRASES = _phrases()
ENDING = Phrase(PASSWORD, re.compile(""), strong=True)
IN_CJK = [(Phrase(kind, re.compile(""), strong=kind == PASSWORD), re.compile(words)) for kind, words in CJK]


def lowered(text: str) -> str:
    """`text` in lower case, letter for letter: one Turkish capital would become two characters."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def may_announce(lower: str, names: set[str]) -> bool:
    """Whether a text in lower case with these words can announce something: most texts announce nothing."""
    return bool(_wanted(names)) or not lower.isascii() and bool(WIDE.search(lower))


def find(lower: str, names: set[str] | None = None) -> Iterator[tuple[Phrase, int, int]]:
    """(phrase, begin, end) of every announcement in a text in lower case; several may begin at one word. names: its words."""
    wanted = _wanted(set(words_of(lower)) if names is None else names)
    found = [(*match.span(), name) for name in wanted for match in _whole(name).finditer(lower)]
    for begin, end, name in sorted(found):
        for phrase in PHRASES.get(name, ()):
            rest = phrase.rest.match(lower, end)
            if rest:
                yield phrase, begin, rest.end()
        if name not in PHRASES:
            yield ENDING, begin, end
    if not lower.isascii() and WIDE.search(lower):
        for phrase, words in IN_CJK:
            yield from ((phrase, *match.span()) for match in words.finditer(lower) if not words.match(lower, match.end()))


def _wanted(names: set[str]) -> set[str]:
    return (PHRASES.keys() & names) | {name for name in names if name.endswith(ENDINGS) or name.startswith(STEMS)}


@lru_cache(4096)
def _whole(name: str) -> re.Pattern:
    """Finds a whole word. It begins with the letters, which are searched for quickly."""
    return re.compile(rf"{name}(?<![^\W\d_]{name})(?![^\W\d_])")
