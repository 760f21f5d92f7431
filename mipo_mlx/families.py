"""Families of notes: those that share a telling sentence. Splits keep a family on one side, and the leak test shuffles it whole."""

from collections import Counter, defaultdict

from .words import PART, SENTENCE_END

MIN_WORDS = 3  # a shorter sentence ("Sounds good.") says nothing about whose text it is
BOILERPLATE = 0.25  # share of all notes that makes a sentence boilerplate


def sentences(text: str) -> set[str]:
    """The sentences of a text that are long enough to tell, lower case, without punctuation."""
    found = (" ".join(PART.findall(part.lower())) for line in text.split("\n") for part in SENTENCE_END.split(line))
    return {sentence for sentence in found if sentence.count(" ") >= MIN_WORDS - 1}


def telling(keys: dict[str, set[str]]) -> dict[str, set[str]]:
    """`keys` without boilerplate: a sentence of every fourth note (a footer, a template's line) tells no note from another."""
    count = Counter(sentence for found in keys.values() for sentence in found)
    common = {sentence for sentence, times in count.items() if times > max(8, BOILERPLATE * len(keys))}
    return {note: found - common for note, found in keys.items()}


def connected(keys: dict[str, set[str]]) -> list[list[str]]:
    """Notes connected through shared sentences, in the notes' order."""
    parent: dict[str, str] = {note: note for note in keys}

    def root(note: str) -> str:
        while parent[note] != note:
            parent[note] = parent[parent[note]]
            note = parent[note]
        return note

    owner: dict[str, str] = {}
    for note, found in keys.items():
        for sentence in found:
            parent[root(note)] = root(owner.setdefault(sentence, note))
    groups: dict[str, list[str]] = defaultdict(list)
    for note in keys:
        groups[root(note)].append(note)
    return list(groups.values())
