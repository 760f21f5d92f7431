"""Parroting: an answer that repeats the user's context, or that takes the user's part ("I'm a handyman who also ...").

The filter of the training pairs and the evaluation use this one measure. An answer parrots where six or more words in a row
are the context's, or where it claims a fact of the user as the assistant's own.

A claim is a statement in the first person about the speaker: "I am ...", "I keep ...", "my sister ...", "as a retired teacher,
I ...". It counts where at least half of its first telling words are the context's, in whatever person the context is written.
An assistant's words about itself never count: offers ("I can help"), thoughts ("I think"), feelings about the request ("I'm
glad to"), reports on the answer ("I left out dairy"). Nor do clauses that address the user, quoted speech, and texts written
for the user to sign.
"""

import re

from .words import plain, quotes, words

RUN = 6  # words in a row that count as quoting the context
TELLING = 4  # words of a claim that decide: the first ones behind its subject

QUOTED = re.compile(r"\"[^\"\n]*\"|\u201c[^\u201d\n]*\u201d")
DICTATED = re.compile(r"\b(?:say|tell|write|reply|answer|text|ask|begin|start)\b[^.!?:\n]{0,40}:[^\n]*", re.IGNORECASE)
IN_USERS_VOICE = re.compile(  # a request to write, not a prompt about toast, a letter that came or writing for a living
    r"(?:(?:^|[.!?:;,\n])\s*(?:(?:and|then|now|just|quickly) )?|\b(?:please|kindly|you|me|us|let'?s|(?<!read )and|should|must|"
    r"(?:you|me|us|need|have|required) to|(?:should|could|can|do|would) (?:i|we)) )"
    r"(?:write|draft|compose|(?:re)?word|(?:re)?phrase)\b"
    r"|\b(?:give|make|create|prepare|structure|suggest|propose|need|want|help|say|put)\b[^.!?\n]{0,60}? (?:an?|the|my|our) "
    r"(?:(?!of\b)[\w'-]+ ){0,2}(?:letter|e-?mail|message|bio|toast|speech|caption|introduction)s?\b"
    r"|(?:^|[.!?\n])\s*(?:(?:an?|my|our) )?(?:[\w'-]+ ){0,2}"
    r"(?:(?:letter|e-?mail|message|bio|speech|caption)s? (?:to|for|about)|toast (?:to|for (?:my|our|the)))\b"
    r"|\bintroduce (?:me|us|\w+sel(?:f|ves))\b"
)
CLAUSES = re.compile(r"[.!?;:,\n()]+|\b(?:and|but|so|or|who|which|that|because|while|when|where|if|(?:like|as|than) you)\b")
AS_ONE = re.compile(  # at the beginning of a clause: "use honey as a glaze" says nothing about the speaker
    r"(?:^|[.!?;:,\n(]\s*|\b(?:and|but|so|well)\s+)(?:speaking )?(?:as|being) (?:an?|someone|somebody|one) "
    r"([^.!?;:\n]{1,80}?),?\s+(?:i|my|we|i'\w+)\b"
)
AT_WORK = re.compile(  # a report on the answer: "I've kept it gluten-free", but not "I kept it in the garden"
    r"(?:kept|made) (?:it|this|these|everything|(?:the|my) (?:plan|list|menu|recipe|answer|suggestion)s?)\b"
    r"(?! (?:in|at|on|to|from|with|for|by|as|through|into|back|home|myself|ourselves)\b)"
    r"|based (?:it|this|these|everything|(?:the|this|my) \w+) (?:on|around)\b"
    r"|left (?:\w+ ){0,3}out\b"
)
CONTRACTED = {"'m": " am", "'ve": " have", "'d": " would", "'ll": " will", "'re": " are"}
APOSTROPHE = re.compile(r"\b(i|we)('m|'ve|'d|'ll|'re)\b")


def stem(word: str) -> str:
    """The word without its ending: 'bakes', 'baking' and 'bake' become one word."""
    for ending in ("'s", "ing", "ed", "es", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


ADDRESS = frozenset("you your yours you're you've you'd you'll yourself".split())
NEGATIONS = frozenset("no not never don't doesn't didn't haven't hasn't isn't can't cannot without".split())
ADVERBS = frozenset(
    "also always often usually sometimes really still just only even never ever once actually currently now recently "
    "especially particularly mostly mainly too have had been has do did don't didn't haven't not both all".split()
)
MODALS = frozenset("can could would will should may might must shall won't wouldn't shouldn't couldn't cannot can't let".split())
# Verbs of what an assistant does: none of them states a fact of a person's life.
SPEECH = frozenset(
    stem(word)
    for word in (
        "think thought know knew hope believe understand understood see saw guess suppose imagine wonder mean say said "
        "suggest recommend advise propose offer encourage ask assume notice agree appreciate apologize apologise thank "
        "promise assure bet wish mention describe explain show focus put include list add write wrote written prepare "
        "create gather compile find found hear heard provide give gave outline look search check pick choose chose chosen "
        "select tell told admire try tried help trust expect share realize realise recognize recognise remember"
    ).split()
)
FEELINGS = frozenset(
    "happy glad sorry sure here afraid delighted pleased able unable excited confident curious thrilled certain aware going "
    "available ready".split()
)
OFFERS = frozenset(
    "suggestion suggestions idea ideas tip tips recommendation recommendations question questions advice thought thoughts "
    "option options recipe recipes plan plans list example examples answer answers way ways few couple".split()
)
# Words that stand in anyone's sentences: only the other words of a claim are telling.
EVERYDAY = frozenset(
    "a able about advice after again all also always am an and any anything are around as assist assistance assistant at be "
    "because been before being best better but by can could day days did do does each easy else enjoy enjoyed enjoying "
    "enough even every everyone experience favorite favourite few find first for from full get give glad go goal good got "
    "great had happy has have having he help her here him his hope how i idea ideas if important in into is it its just "
    "keen keep know last least let life like liked likes list live lived lives living long lot love loved loves loving main "
    "make making man many me mind more most much my need needs never new next nice not of off often old on once one opinion "
    "or other our out over own part people person personal place plan pleasure point prefer quite really recommend "
    "recommendation recommendations response role same say see she short side simple since so some someone something "
    "sometimes sorry sound special still such suggest suggestion suggestions support sure take than that the their them "
    "then there these they thing things think this those three through time times tip tips to together too try two "
    "understanding up us use used useful usually very view want wants was way ways we week well were what when where which "
    "who will wish with without word words work worked working works would year years yes yet".split()
)
NOUN_END = frozenset(
    "is are was were be been has have had do does did will would can could should may might must to in on of at for from "
    "with by as about and or but so the a an this that these those who which when where if because while i you we he she "
    "they it".split()
)


def parrots(answer: str, context: str, prompt: str = "") -> bool:
    """Whether the answer repeats RUN words of the context in a row, or takes the user's part."""
    return quotes(answer, context, RUN) or takes_users_part(answer, context, prompt)


def takes_users_part(answer: str, context: str, prompt: str = "") -> bool:
    """Whether the answer states a fact of the user as the assistant's own.

    Never where the prompt asks for a text in the user's voice (a letter, a toast): there the first person is right.
    """
    if IN_USERS_VOICE.search(plain(prompt)):
        return False
    known_words = words(context)
    stated = {stem(word) for word in known_words if word not in EVERYDAY}
    denied = {stem(w) for i, word in enumerate(known_words) if word in NEGATIONS for w in known_words[i + 1 : i + 4]}
    for claim, strict in claims(answer):
        telling = [stem(word) for word in claim if len(word) > 2 and word not in EVERYDAY and word not in NEGATIONS][:TELLING]
        facts = denied if NEGATIONS & set(claim[:2]) else stated  # a context with kids does not state "I have no kids"
        known = sum(word in facts for word in telling)
        if telling and (known == len(telling) if strict else 2 * known >= len(telling)):
            return True
    return False


def claims(text: str) -> list[tuple[list[str], bool]]:
    """(words, strict) of each statement in the first person.

    A strict one ("we ...", "I can't ...") may be about anyone, so all of its telling words have to be the context's.
    """
    text = plain(DICTATED.sub(" ", QUOTED.sub(" ", text)))
    statements = [(claim, False) for claim in map(words, AS_ONE.findall(text)) if not ADDRESS & set(claim)]
    for clause in CLAUSES.split(APOSTROPHE.sub(lambda match: match[1] + CONTRACTED[match[2]], text)):
        spoken = words(clause)
        if ADDRESS & set(spoken):
            continue
        for position, word in enumerate(spoken):
            rest = spoken[position + 1 :]
            if word in ("i", "we"):
                claim = _statement(rest)
                if claim:
                    statements.append((claim, word == "we" or rest[0] in MODALS))
            elif word in ("my", "our"):
                end = next((i for i, other in enumerate(rest[:4]) if other in NOUN_END), 3)
                statements.append((rest[:end], word == "our"))
    return statements


def _statement(rest: list[str]) -> list[str]:
    """The words behind "I" from its verb on, a negation kept; [] for an assistant's words about itself."""
    if not rest:
        return []
    if rest[0] in MODALS:  # "I can't eat gluten" may be a fact of the user; every other modal makes an offer or a condition
        return rest if rest[0] in ("can't", "cannot") and rest[1:] and stem(rest[1]) not in SPEECH else []
    if rest[0] in ("have", "had") and OFFERS & set(rest[1:5]):
        return []
    negation, rest = _skip_adverbs(rest)
    if AT_WORK.match(" ".join(rest)):
        return []
    if rest and rest[0] in ("am", "was", "are", "were"):
        also, rest = _skip_adverbs(rest[1:])
        negation += also
        if rest and rest[0] in FEELINGS:
            return []
    return [] if not rest or stem(rest[0]) in SPEECH else negation + rest


def _skip_adverbs(rest: list[str]) -> tuple[list[str], list[str]]:
    """(negations among the leading adverbs and auxiliaries, the words after these)."""
    count = next((i for i, word in enumerate(rest) if word not in ADVERBS), len(rest))
    return [word for word in rest[:count] if word in NEGATIONS], rest[count:]
