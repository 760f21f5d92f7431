"""A short profile of who wrote the notes, distilled by the model: `mipo-mlx profile RECIPE`.

    contexts.jsonl -> profile-samples.jsonl (what the model wrote, a batch a line) -> profile.md, profile.json

Map: the model says in a few sentences what each passage tells of its author; what the passage does not support is dropped.
Reduce: sentences that say the same become one, and while they are too many for `sources.profile_tokens` the model says groups of
them in fewer words; the rest is cut by rank. Each line names the notes that it came from. One author's profile is made of the
notes to train on alone. Of several people each has their own, made of their own notes, which are all on one side.

Answers are the likeliest ones (no chance in them) and kept by what was asked, so a command that was killed goes on, and ends
with the same bytes. A profile.md that is there is left as it is.
"""

import hashlib
from collections import Counter
from pathlib import Path

from ..engine.sampling import Prefixes, sample
from ..errors import Failure, UserError
from ..files import append_jsonl, read_jsonl, read_records, truncate_jsonl, write_json, write_text
from ..models import prompts
from ..models.load import LoadedModel
from ..models.prompts import window_of
from ..progress import Bar, Reporter
from ..recipe import Recipe
from ..records import TRAIN, Context
from ..sources import canaries
from .contexts import FILE, STATE, edited, of_people, one_line
from .facts import SUBJECT, Fact, condensed, merge, ranked, sentences, supported, unfit

SAMPLES = "profile-samples.jsonl"
TELL = f'Note:\n{{note}}\n\nWhat does this note tell about its writer? Write short sentences that begin with "{SUBJECT}".'
CONDENSE = f'Facts:\n{{facts}}\n\nSay these facts in at most {{count}} short sentences that begin with "{SUBJECT}".'
# A turn that shows what is wanted; small models need it. Its facts are in no note, so that none of them can slip through.
TOLD = (
    "Kites. I build box kites from old maps with my niece Ida, and we fly them on the hill behind the school when the wind is "
    "from the north. It has cost me two pairs of trousers so far.",
    f"{SUBJECT} builds box kites from old maps.\n{SUBJECT} flies kites with a niece named Ida.",
)
CONDENSED = (
    f"- {SUBJECT} builds box kites from old maps.\n- {SUBJECT} flies kites behind a school.\n- {SUBJECT} has a niece named Ida.",
    "2",
    f"{SUBJECT} builds box kites from old maps and flies them behind a school.\n{SUBJECT} has a niece named Ida.",
)
TOKENS = 64  # of an answer, at most
GROUP = 6  # facts that are said anew together, in half as many sentences
ROUNDS = 4  # of saying anew, at most
PROGRESS = 0.9  # of its length before: a round that leaves more has shortened nothing
HEAD = (
    "# Profile\n\n<!-- What the model found in the notes, with the places that each line came from. Edit it as you like: comments "
    "and\nheadings are not told to the model, and a file that is here is never overwritten without --fresh. -->\n"
)


def write_profile(folder: Path, recipe: Recipe, loaded: LoadedModel, reporter: Reporter) -> bool:
    """Write profile.md and profile.json, unless there is a profile.md; returns whether it was written.

    Raises UserError where there are no notes, Failure where the model writes nothing that they support.
    """
    if (folder / FILE).exists():
        reporter.say(f"  {folder / FILE}: used as it is" + (", edited by hand" if edited(folder) else ""))
        return False
    contexts = canaries.unplanted(read_records(folder / "contexts.jsonl", Context), recipe.seed, recipe.sources.canaries)
    people = passages_of(contexts, recipe)
    dropped: Counter = Counter()
    found = told(folder, recipe, loaded, people, dropped, reporter)
    facts = reduce(folder, recipe, loaded, found, dropped, reporter)
    dropped = +dropped
    lost = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
    if not any(facts.values()):
        raise Failure(
            f"{folder / FILE}: not written, since the model wrote nothing about the author that the notes support "
            f"(dropped: {lost or 'none'}); take a larger model, or write the file by hand, one line a fact"
        )
    kept = sum(map(len, facts.values()))
    reporter.say(f"  profile: {kept} lines from {sum(map(len, people.values()))} passages; dropped: {lost or 'none'}")
    text = document(facts, named=of_people(recipe))
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_json(folder / STATE, {"sha256": digest, "lines": kept, "dropped": dict(sorted(dropped.items()))})
    write_text(folder / FILE, text)
    return True


def passages_of(contexts: list[Context], recipe: Recipe) -> dict[str, list[Context]]:
    """The passages that each profile is made of: by person, or, of one author (""), those of the training side."""
    if not of_people(recipe):
        mine = [context for context in contexts if context.split == TRAIN]
        people = {"": mine} if mine else {}
    else:
        people = {}
        for context in contexts:
            people.setdefault(one_line(context.note), []).append(context)
    if not people:
        raise UserError("profile: there are no notes to train on, and a profile is made of them; name some with --notes PATH")
    return people


def told(
    folder: Path, recipe: Recipe, loaded: LoadedModel, people: dict[str, list[Context]], dropped: Counter, reporter: Reporter
) -> dict[str, list[Fact]]:
    """The facts that the passages of each person support, equal ones merged."""
    rows = [(name, place, context) for name, passages in people.items() for place, context in enumerate(passages)]
    shown = (TELL.replace("{note}", TOLD[0]), TOLD[1])
    asked = [request(loaded, shown, TELL.replace("{note}", context.text.strip())) for _, _, context in rows]
    window = window_of(loaded.config, TOKENS)
    fits = [window is None or len(tokens) <= window for tokens in asked]
    if not all(fits):
        dropped["notes_beyond_window"] += fits.count(False)
    asked = [tokens for tokens, fit in zip(asked, fits, strict=True) if fit]
    rows = [row for row, fit in zip(rows, fits, strict=True) if fit]
    with reporter.track("reading notes for a profile", total=len(asked), unit="passages") as bar:
        answers = write(folder / SAMPLES, asked, loaded, recipe, bar)
    found: dict[str, list[Fact]] = {name: [] for name in people}
    for (name, place, context), (text, finished) in zip(rows, answers, strict=True):
        for sentence in sentences(text, finished):
            fault = unfit(sentence, context.text)
            if fault:
                dropped[fault] += 1
            else:
                origin = f"{context.source}:{context.line}"
                found[name].append(Fact(sentence, (origin,), supported(sentence, context.text), place))
    merged = {name: merge(facts) for name, facts in found.items()}
    dropped["said_twice"] += sum(map(len, found.values())) - sum(map(len, merged.values()))
    return merged


def reduce(
    folder: Path, recipe: Recipe, loaded: LoadedModel, people: dict[str, list[Fact]], dropped: Counter, reporter: Reporter
) -> dict[str, list[Fact]]:
    """At most `profile_tokens` of facts for each person, best first."""
    limit = recipe.sources.profile_tokens
    people, stuck = dict(people), set()
    for _ in range(ROUNDS):
        long = [name for name, facts in people.items() if name not in stuck and len(facts) > 1 and size(loaded, facts) > limit]
        groups = [(name, group) for name in long for group in in_groups(people[name])]
        if not groups:
            break
        with reporter.track("condensing the profile", total=len(groups), unit="groups") as bar:
            answers = write(folder / SAMPLES, [shorten(loaded, group) for _, group in groups], loaded, recipe, bar)
        shorter: dict[str, list[Fact]] = {name: [] for name in long}
        for (name, group), (text, finished) in zip(groups, answers, strict=True):
            new = merge(condensed(text, finished, group, dropped))
            shorter[name] += new if size(loaded, new) < size(loaded, group) else group
        for name in long:
            merged = merge(shorter[name])
            if size(loaded, merged) > PROGRESS * size(loaded, people[name]):
                stuck.add(name)
            dropped["condensed"] += len(people[name]) - len(merged)
            people[name] = merged
    return {name: cut(loaded, ranked(facts), limit, dropped) for name, facts in people.items()}


def in_groups(facts: list[Fact]) -> list[list[Fact]]:
    """Neighbours in the notes together."""
    ordered = sorted(facts, key=lambda fact: fact.place)
    return [ordered[at : at + GROUP] for at in range(0, len(ordered), GROUP)]


def shorten(loaded: LoadedModel, group: list[Fact]) -> list[int]:
    def question(facts: str, count: str) -> str:
        return CONDENSE.replace("{facts}", facts).replace("{count}", count)

    facts = "\n".join(f"- {fact.text}" for fact in group)
    return request(loaded, (question(*CONDENSED[:2]), CONDENSED[2]), question(facts, str(max(1, len(group) // 2))))


def cut(loaded: LoadedModel, facts: list[Fact], limit: int, dropped: Counter) -> list[Fact]:
    """As many of the facts, in their order, as fit into `limit` tokens; those too long for what is left are passed over."""
    kept: list[Fact] = []
    for fact in facts:
        if size(loaded, [*kept, fact]) <= limit:
            kept.append(fact)
        else:
            dropped["over_profile_tokens"] += 1
    return kept


def size(loaded: LoadedModel, facts: list[Fact]) -> int:
    """Tokens of a profile of these facts."""
    return len(loaded.tokenizer.encode("\n".join(fact.text for fact in facts), add_special_tokens=False)) if facts else 0


def request(loaded: LoadedModel, shown: tuple[str, str], text: str) -> list[int]:
    """Prompt token ids of a question behind an example of one, the answer's first words included: small models then stay in
    the third person."""
    said = [shown[0], shown[1], text]
    turns = [{"role": role, "content": part} for role, part in zip(("user", "assistant", "user"), said, strict=True)]
    opened = prompts.encode(loaded.tokenizer, turns)
    return opened + list(loaded.tokenizer.encode(SUBJECT, add_special_tokens=False))


def write(path: Path, asked: list[list[int]], loaded: LoadedModel, recipe: Recipe, bar: Bar) -> list[tuple[str, bool]]:
    """(text, whether the model ended it) of the likeliest answer to each request; batches that `path` has are not asked again."""
    settings = recipe.pairs.model_copy(update={"max_tokens": TOKENS, "temperature": 0.0})
    rows = read_jsonl(path)
    truncate_jsonl(path, len(rows))  # a torn last line goes
    known = {row["asked"]: row["answers"] for row in rows}
    answers: list[list] = []
    prefixes = Prefixes(loaded.model, asked, [()] * len(asked))  # what all begin with is run once
    for start in range(0, len(asked), settings.batch):
        batch = asked[start : start + settings.batch]
        key = hashlib.sha256(str(batch).encode()).hexdigest()[:16]
        if key in known:
            bar.skip(len(batch))
        else:
            begun = [prefixes.start(tokens, ()) for tokens in batch]
            found = sample(loaded.model, loaded.tokenizer, begun, settings, 0, lambda answer: bar.advance(1))
            known[key] = [[f"{SUBJECT}{answer.text}", answer.finish == "stop"] for answer in found]
            append_jsonl(path, [{"asked": key, "answers": known[key]}])
        answers += known[key]
    return [(text, finished) for text, finished in answers]


def document(facts: dict[str, list[Fact]], named: bool) -> str:
    """profile.md: a line a fact with its sources in a comment, under a heading for each person where they are named."""
    parts = [HEAD]
    for name, some in facts.items():
        if some:
            lines = [f"- {fact.text} <!-- {', '.join(fact.sources).replace('-->', '-- >')} -->\n" for fact in some]
            parts.append(f"\n{f'## {name}' + chr(10) * 2 if named else ''}{''.join(lines)}")
    return "".join(parts)
