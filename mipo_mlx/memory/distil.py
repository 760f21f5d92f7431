"""A short profile of who wrote the notes, distilled by the model: `mipo-mlx profile RECIPE`.

    contexts.jsonl -> profile-samples.jsonl (the model's answers, a batch a line) -> profile.md, profile.json

Map: the model writes a few facts about the author for each passage. A fact that its passage does not support is dropped: its words
must stand there, and the model must find it likelier under the passage than under none. Of two facts that contradict each other,
that of the later note stays, where both notes have dates in their names. Reduce: equal facts are merged. While they exceed
`sources.profile_tokens`, the model writes groups of them in fewer words. What still exceeds it is cut, the lowest rank first. Each
line names its notes. The profile of one author is made of training notes only. Each of several people has a profile of their own
notes, which all lie on one side of the split.

Each answer is the likeliest one, so nothing is random. It is kept by its prompt. A command that was killed therefore goes on
and ends with the same bytes. An existing profile.md is never changed.
"""

import hashlib
from collections import Counter
from pathlib import Path

from ..engine import fast
from ..engine.logprobs import token_logprobs
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
from .contexts import PROFILE, PROFILE_STATE, edited, of_people, one_line
from .facts import SUBJECT, Fact, condensed, merge, newest, ranked, sentences, supported, unfit

SAMPLES = "profile-samples.jsonl"
TELL = f'Note:\n{{note}}\n\nWhat does this note tell about its writer? Write short sentences that begin with "{SUBJECT}".'
CONDENSE = f'Facts:\n{{facts}}\n\nSay these facts in at most {{count}} short sentences that begin with "{SUBJECT}".'
# An example turn, which small models need. No note holds its facts, so the check of facts drops them where they are repeated.
TELL_EXAMPLE = (
    "Kites. I build box kites from old maps with my niece Ida, and we fly them on the hill behind the school when the wind is "
    "from the north. It has cost me two pairs of trousers so far.",
    f"{SUBJECT} builds box kites from old maps.\n{SUBJECT} flies kites with a niece named Ida.",
)
CONDENSE_EXAMPLE = (
    f"- {SUBJECT} builds box kites from old maps.\n- {SUBJECT} flies kites behind a school.\n- {SUBJECT} has a niece named Ida.",
    "2",
    f"{SUBJECT} builds box kites from old maps and flies them behind a school.\n{SUBJECT} has a niece named Ida.",
)
TOKENS = 64  # of an answer, at most
GROUP = 6  # facts that are condensed together, into half as many sentences
LEAST_GAIN = 0.0  # nats a token by which a note must make its fact likelier
ROUNDS = 4  # of condensing, at most
PROGRESS = 0.9  # share of the length before a round; a round that leaves more than this was of no use
HEAD = (
    "# Profile\n\n<!-- What the model found in the notes, with the places that each line came from. Edit it as you like: comments "
    "and\nheadings are not told to the model, and a file that is here is never overwritten without --fresh. -->\n"
)


def write_profile(folder: Path, recipe: Recipe, loaded: LoadedModel, reporter: Reporter) -> bool:
    """Write profile.md and profile.json, unless there is a profile.md; returns whether it was written.

    Raises UserError where there are no notes, Failure where the model writes nothing that they support.
    """
    if (folder / PROFILE).exists():
        reporter.say(f"  {folder / PROFILE}: used as it is" + (", edited by hand" if edited(folder) else ""))
        return False
    contexts = canaries.unplanted(read_records(folder / "contexts.jsonl", Context), recipe.seed, recipe.sources.canaries)
    people = passages_of(contexts, recipe)
    dropped: Counter = Counter()
    facts = facts_of_passages(folder, recipe, loaded, people, dropped, reporter)
    facts = reduce(folder, recipe, loaded, facts, dropped, reporter)
    dropped = +dropped
    lost = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
    if not any(facts.values()):
        raise Failure(
            f"{folder / PROFILE}: not written, since the model wrote nothing about the author that the notes support "
            f"(dropped: {lost or 'none'}); take a larger model, or write the file by hand, one line a fact"
        )
    kept = sum(map(len, facts.values()))
    reporter.say(f"  profile: {kept} lines from {sum(map(len, people.values()))} passages; dropped: {lost or 'none'}")
    text = document(facts, named=of_people(recipe))
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_json(folder / PROFILE_STATE, {"sha256": digest, "lines": kept, "dropped": dict(sorted(dropped.items()))})
    write_text(folder / PROFILE, text)
    return True


def passages_of(contexts: list[Context], recipe: Recipe) -> dict[str, list[Context]]:
    """The passages of each person. One author has the name "" and only the passages of the training side."""
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


def facts_of_passages(
    folder: Path, recipe: Recipe, loaded: LoadedModel, people: dict[str, list[Context]], dropped: Counter, reporter: Reporter
) -> dict[str, list[Fact]]:
    """The facts of each person that their passages support. Equal facts are merged."""
    rows = [(name, place, context) for name, passages in people.items() for place, context in enumerate(passages)]
    shown = (TELL.replace("{note}", TELL_EXAMPLE[0]), TELL_EXAMPLE[1])
    requests = [request(loaded, shown, TELL.replace("{note}", context.text.strip())) for _, _, context in rows]
    window = window_of(loaded.config, TOKENS)
    fits = [window is None or len(tokens) <= window for tokens in requests]
    if not all(fits):
        dropped["notes_beyond_window"] += fits.count(False)
    requests = [tokens for tokens, fit in zip(requests, fits, strict=True) if fit]
    rows = [row for row, fit in zip(rows, fits, strict=True) if fit]
    with reporter.track("reading notes for a profile", total=len(requests), unit="passages") as bar:
        answers = write(folder / SAMPLES, requests, loaded, recipe, bar)
    written: list[tuple[str, Fact, list[int]]] = []
    for (name, place, context), (text, finished), tokens in zip(rows, answers, requests, strict=True):
        for sentence in sentences(text, finished):
            fault = unfit(sentence, context.text)
            if fault:
                dropped[fault] += 1
            else:
                origin = f"{context.source}:{context.line}"
                written.append((name, Fact(sentence, (origin,), supported(sentence, context.text), place), tokens))
    without = request(loaded, shown, TELL.replace("{note}", ""))
    gained = gains(loaded, [(fact.text, tokens) for _, fact, tokens in written], without)
    likely: dict[str, list[Fact]] = {name: [] for name in people}
    for (name, fact, _), gain in zip(written, gained, strict=True):
        if gain >= LEAST_GAIN:
            likely[name].append(fact)
    dropped["unlikely"] += len(written) - sum(map(len, likely.values()))
    standing = {name: newest(facts) for name, facts in likely.items()}
    dropped["contradicted"] += sum(map(len, likely.values())) - sum(map(len, standing.values()))
    merged = {name: merge(facts) for name, facts in standing.items()}
    dropped["said_twice"] += sum(map(len, standing.values())) - sum(map(len, merged.values()))
    return merged


def gains(loaded: LoadedModel, facts: list[tuple[str, list[int]]], without: list[int]) -> list[float]:
    """Nats a token by which each fact is likelier under the request that it answered, token ids, than under `without`."""
    if not facts:
        return []
    tokens = [list(loaded.tokenizer.encode(text.removeprefix(SUBJECT), add_special_tokens=False)) for text, _ in facts]
    with fast(loaded.model):
        own = token_logprobs(loaded.model, [prompt for _, prompt in facts], [[some] for some in tokens])
        (bare,) = token_logprobs(loaded.model, [without], [tokens])
    return [float((under[0] - of_none).mean()) for under, of_none in zip(own, bare, strict=True)]


def reduce(
    folder: Path, recipe: Recipe, loaded: LoadedModel, people: dict[str, list[Fact]], dropped: Counter, reporter: Reporter
) -> dict[str, list[Fact]]:
    """The best facts of each person, at most `profile_tokens` tokens, best first."""
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
    """Groups of GROUP facts, in the order of their passages."""
    ordered = sorted(facts, key=lambda fact: fact.place)
    return [ordered[at : at + GROUP] for at in range(0, len(ordered), GROUP)]


def shorten(loaded: LoadedModel, group: list[Fact]) -> list[int]:
    def question(facts: str, count: str) -> str:
        return CONDENSE.replace("{facts}", facts).replace("{count}", count)

    facts = "\n".join(f"- {fact.text}" for fact in group)
    return request(loaded, (question(*CONDENSE_EXAMPLE[:2]), CONDENSE_EXAMPLE[2]), question(facts, str(max(1, len(group) // 2))))


def cut(loaded: LoadedModel, facts: list[Fact], limit: int, dropped: Counter) -> list[Fact]:
    """The facts, in their order, that fit into `limit` tokens. A fact that is too long for the rest is dropped."""
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
    """Prompt token ids of an example turn, the question `text`, and the first words of its answer.

    Those words keep a small model in the third person.
    """
    parts = [shown[0], shown[1], text]
    turns = [{"role": role, "content": part} for role, part in zip(("user", "assistant", "user"), parts, strict=True)]
    opened = prompts.encode(loaded.tokenizer, turns)
    return opened + list(loaded.tokenizer.encode(SUBJECT, add_special_tokens=False))


def write(path: Path, requests: list[list[int]], loaded: LoadedModel, recipe: Recipe, bar: Bar) -> list[tuple[str, bool]]:
    """(text, whether the model ended it) of the likeliest answer to each request. Batches in `path` are not sampled again."""
    settings = recipe.pairs.model_copy(update={"max_tokens": TOKENS, "temperature": 0.0})
    rows = read_jsonl(path)
    truncate_jsonl(path, len(rows))  # removes a last line that was cut off
    known = {row["asked"]: row["answers"] for row in rows}
    answers: list[list] = []
    prefixes = Prefixes(loaded.model, requests, [()] * len(requests))  # the shared beginning runs once
    for start in range(0, len(requests), settings.batch):
        batch = requests[start : start + settings.batch]
        key = hashlib.sha256(str(batch).encode()).hexdigest()[:16]
        if key in known:
            bar.skip(len(batch))
        else:
            begun = prefixes.starts(batch, [()] * len(batch))
            sampled = sample(loaded.model, loaded.tokenizer, begun, settings, 0, lambda answer: bar.advance(1))
            known[key] = [[f"{SUBJECT}{answer.text}", answer.finish == "stop"] for answer in sampled]
            append_jsonl(path, [{"asked": key, "answers": known[key]}])
        answers += known[key]
    return [(text, finished) for text, finished in answers]


def document(facts: dict[str, list[Fact]], named: bool) -> str:
    """profile.md: one line a fact, its sources in a comment. Several people have a heading each."""
    parts = [HEAD]
    for name, some in facts.items():
        if some:
            lines = [f"- {fact.text} <!-- {', '.join(fact.sources).replace('-->', '-- >')} -->\n" for fact in some]
            parts.append(f"\n{f'## {name}' + chr(10) * 2 if named else ''}{''.join(lines)}")
    return "".join(parts)
