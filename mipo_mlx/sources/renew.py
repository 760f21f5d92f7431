"""Stage `sources` of an update: the passages of new and changed notes become contexts-N.jsonl. The split stays.

A note keeps its side. A note that shares a sentence with notes of one side goes to that side. The others are dealt as `split` deals
them: families of notes in a seeded order, until the share of held-out notes is `sources.heldout_contexts` again.
"""

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from ..files import CONTEXTS, of_round, read_json, read_records, updates, write_json, write_records
from ..progress import Reporter
from ..recipe import Recipe
from ..records import HELDOUT, TRAIN, Context, seed_for
from ..text.words import connected, sentences, telling
from .canaries import unplanted
from .changes import LENGTH, Changes, kept_name
from .chunks import CountTokens, cut
from .dedupe import drop_duplicates
from .gather import note_files, read_file
from .note import Passage, Tally
from .note_file import NoteFile
from .own_choice import OwnChoice, read_choice
from .rank import ranked
from .readers import headings_as_notes
from .split import OVER, SHARED, best, drop


def run(folder: Path, recipe: Recipe, reporter: Reporter, number: int) -> dict[str, Any]:
    """Write contexts-N.jsonl and sources-N.json; returns the latter. Raises UserError where the notes are missing.

    sources-N.json has the hashes of all notes, the counts, and `stale`: the ids of earlier contexts whose words no longer stand in
    the notes. They are not trained on again.
    """
    report, own = folder / of_round("sources.json", number), folder / of_round(CONTEXTS, number)
    if report.exists() and own.exists():
        return read_json(report)
    from ..models.load import load_tokenizer
    from ..models.prompts import count_tokens

    earlier = earlier_numbers(folder, number)
    known = [context for n in earlier for context in read_records(folder / of_round(CONTEXTS, n), Context)]
    before = read_json(folder / of_round("sources.json", earlier[-1])).get("hashes", {})
    tokenizer = load_tokenizer(recipe.model)
    own_choice = read_choice(folder, recipe.sources)
    renewal = Renewal(recipe, unplanted(known, recipe.seed, recipe.sources.canaries), number, own_choice)
    contexts, row = renewal.collect(before, lambda text: count_tokens(tokenizer, text), reporter)
    write_records(own, contexts)
    write_json(report, row)
    trained = row[TRAIN]["contexts"]
    reporter.conclude(
        f"  {trained} new passages to train on, {row[HELDOUT]['contexts']} held out; {len(row['stale'])} no longer stand"
    )
    return row


def earlier_numbers(folder: Path, number: int) -> list[int]:
    """The rounds before an update that have contexts: the first, and the updates that were taken."""
    return [1, *(n for n in updates(folder) if n < number)]


class Renewal:
    """The notes as they are now, against the contexts that a run knows."""

    def __init__(self, recipe: Recipe, known: list[Context], number: int, own: OwnChoice) -> None:
        self.recipe, self.known, self.number, self.own = recipe, known, number, own
        self.sides = {context.note: context.split for context in known}

    def collect(
        self, before: dict[str, str], count_tokens: CountTokens, reporter: Reporter
    ) -> tuple[list[Context], dict[str, Any]]:
        """(new contexts, the content of sources-N.json). `before`: the hashes of the notes that the run has read."""
        sources, tally = self.recipe.sources, Tally()
        files = {kept_name(file.source, sources): file for file in note_files(sources, tally)}
        now = {name: file.sha256()[:LENGTH] or before.get(name, "") for name, file in files.items()}
        changes = Changes.between(before, now)
        read = [file for name, file in files.items() if name in {*changes.new, *changes.changed}]
        passages = self._passages(read, len(files) == 1, count_tokens, tally, reporter)
        touched = {file.source for file in read} | {*changes.gone, *changes.changed}
        here = {passage.text for passage in passages}
        stale = [context.id for context in self.known if context.source in touched and context.text not in here]
        contexts = self._dealt(self._fresh(passages, set(stale), tally), tally)
        row = {**tally.to_row(), "hashes": now, "stale": stale, "choice": self.own.digest()}
        for side in (TRAIN, HELDOUT):
            mine = [context for context in contexts if context.split == side]
            row[side] = {"contexts": len(mine), "notes": len({context.note for context in mine})}
        return contexts, row

    def _passages(
        self, read: list[NoteFile], alone: bool, count_tokens: CountTokens, tally: Tally, reporter: Reporter
    ) -> list[Passage]:
        """The passages of these files; `alone`: there is no other file, so that its sections are notes."""
        sources, passages = self.recipe.sources, list[Passage]()
        with reporter.track("reading notes", total=len(read), unit="files") as bar:
            for file in read:
                notes = read_file(file, tally, sources)
                for note in headings_as_notes(notes) if alone else notes:
                    passages += ranked(note, cut(note, count_tokens, sources.context_tokens, sources.min_tokens, tally))
                bar.advance(1)
        return passages

    def _fresh(self, passages: list[Passage], stale: set[str], tally: Tally) -> list[Passage]:
        """The passages that say something new. What only resembles a stale one is new: a fact in it may have changed."""
        old = {" ".join(context.text.split()) for context in self.known}
        new = [passage for passage in self.own.applied(passages, tally) if " ".join(passage.text.split()) not in old]
        standing = [Passage(c.text, c.note, c.source, c.line, c.tokens) for c in self.known if c.id not in stale]
        kept = drop_duplicates([*standing, *new], self.recipe.sources.near_duplicate, tally)
        mine = set(map(id, new))
        return [passage for passage in kept if id(passage) in mine]

    def _dealt(self, passages: list[Passage], tally: Tally) -> list[Context]:
        """The passages as contexts, each on its side. What shares a sentence with both sides is dropped."""
        texts: dict[str, set[str]] = defaultdict(set)
        for note, text in [*((c.note, c.text) for c in self.known), *((p.note, p.text) for p in passages)]:
            texts[note] |= sentences(text)
        keys = telling(texts)
        own = {passage.note: keys[passage.note] for passage in passages}
        taken: dict[str, set[str]] = {TRAIN: set(), HELDOUT: set()}
        for note, side in self.sides.items():
            taken[side] |= keys[note]
        sides = dict[str, str]()
        for family in self._shuffled(connected(own)):
            words = set().union(*(own[note] for note in family))
            linked = {self.sides[note] for note in family if note in self.sides}
            linked |= {side for side in taken if words & taken[side]}
            if len(linked) == 2:  # each note on its own side, or nowhere
                sides |= {note: self.sides.get(note, "") for note in family}
                continue
            side = linked.pop() if linked else HELDOUT if self._holds_more(family, sides) else TRAIN
            sides |= dict.fromkeys(family, side)
            taken[side] |= words
        kept = [passage for passage in passages if self._apart(passage, sides[passage.note], taken)]
        drop(passages, kept, SHARED, tally)
        kept, name = self._limited(kept, sides, tally), f"c{self.number}-"
        return [passage.as_context(f"{name}{place:05}", sides[passage.note]) for place, passage in enumerate(kept)]

    def _shuffled(self, families: list[list[str]]) -> list[list[str]]:
        random.Random(seed_for(self.recipe.seed, f"split {self.number}")).shuffle(families)
        return families

    def _holds_more(self, family: list[str], sides: dict[str, str]) -> bool:
        """Whether a family of new notes is to be held out, so that the share of held-out notes stays that of the recipe."""
        every = {**self.sides, **sides}
        held = sum(side == HELDOUT for side in every.values())
        return held + len(family) <= round((len(every) + len(family)) * self.recipe.sources.heldout_contexts)

    def _apart(self, passage: Passage, side: str, taken: dict[str, set[str]]) -> bool:
        other = {TRAIN: HELDOUT, HELDOUT: TRAIN}.get(side)
        return other is not None and not sentences(passage.text) & taken[other]

    def _limited(self, passages: list[Passage], sides: dict[str, str], tally: Tally) -> list[Passage]:
        """At most `sources.max_contexts` passages, those that tell most of their author, in their order."""
        limit = self.recipe.sources.max_contexts
        if len(passages) <= limit:
            return passages
        rng, kept = random.Random(seed_for(self.recipe.seed, f"best of update {self.number}")), list[Passage]()
        for side, count in ((HELDOUT, round(limit * self.recipe.sources.heldout_contexts)), (TRAIN, limit)):
            notes: dict[str, list[Passage]] = defaultdict(list)
            for passage in passages:
                if sides[passage.note] == side:
                    notes[passage.note].append(passage)
            kept += best(notes, rng, min(count, limit - len(kept)))
        drop(passages, kept, OVER, tally)
        mine = set(map(id, kept))
        return [passage for passage in passages if id(passage) in mine]
