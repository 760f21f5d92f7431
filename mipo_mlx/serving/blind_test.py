"""The blind test: one request, an answer by the trained model and one by its base, in random order.

Which answer is whose stays on the server until the vote is in the file, and the page never learns it for a single vote.
"""

import asyncio
import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..evaluation import blind_votes
from ..files import append_jsonl, end_torn_line, read_records, touch_private
from ..models.chat_template import plain
from ..recipe import Recipe
from ..records import BASE, NEITHER, TUNED, VOTES, Ballot, Prompt
from .api import Api, Variant, gone
from .protocol import CHAT, CompletionRequest, Refused, Settings

MOST_OPEN = 100  # trials without a vote that are remembered
LONGEST_REQUEST = 4_000  # characters
CHOICES = ("first", "second", NEITHER)


@dataclass(frozen=True)
class Trial:
    """Two answers that wait for a vote."""

    ballot: Ballot  # its choice is still open
    sources: list[dict[str, Any]]

    @property
    def sides(self) -> tuple[str, str]:
        """Whose the answers are, in their order on the page."""
        return (TUNED, BASE) if self.ballot.first == TUNED else (BASE, TUNED)

    @property
    def answers(self) -> list[str]:
        """As the page shows them."""
        return [self.ballot.tuned if side == TUNED else self.ballot.base for side in self.sides]

    @property
    def same(self) -> bool:
        """Whether nobody could prefer one of them."""
        return self.ballot.tuned == self.ballot.base


class BlindTest:
    def __init__(self, api: Api, folder: Path, recipe: Recipe) -> None:
        self.api, self.folder, self.recipe = api, folder, recipe
        self.open: OrderedDict[str, Trial] = OrderedDict()
        prompts = read_records(folder / "prompts.jsonl", Prompt)
        self.heldout = [prompt.text for prompt in prompts if prompt.judges]
        self._random = random.SystemRandom()

    @property
    def votes(self) -> list[Ballot]:
        """Votes on the adapters that answer now."""
        return blind_votes.votes_on(self.folder, self.api.worker.assistant.taken.digest)

    def state(self) -> dict[str, Any]:
        """How many votes there are; the result once they are enough."""
        votes = self.votes
        result = blind_votes.count(votes, self.recipe)
        shown = None
        if result.enough:
            shown = {
                "tuned": result.tuned, "base": result.base, "neither": result.neither, "share": result.preferred.value,
                "interval": result.preferred.interval, "sentence": blind_votes.sentence(result),
            }  # fmt: skip
        return {"votes": result.votes, "needed": blind_votes.ENOUGH, "heldout": len(self._unasked(votes)), "result": shown}

    async def ask(self, request: str | None) -> dict[str, Any]:
        """A new trial: two answers to the owner's own request, or, for None, to a held-out one that has no vote yet."""
        own = request is not None
        text = plain(request if own else self._draw()).strip()  # type: ignore[arg-type]
        if not text or len(text) > LONGEST_REQUEST:
            raise Refused(400, f"question: expected a text of at most {LONGEST_REQUEST:,} characters", "question")
        wanted = CompletionRequest(CHAT, self.folder.name, Settings(), [{"role": "user", "content": text}], question=text)
        order, background = await self.api.prepare(wanted, Variant(TUNED))
        orders = [order, replace(order, side=BASE)]
        (tuned, _), (base, _) = await asyncio.gather(*map(self.api.whole, orders))
        opening = [{"role": "system", "content": background.system}] if background.system else []
        ballot = Ballot(
            request=text,
            own=own,
            prompt=[*opening, *wanted.talk],
            passages=[match.entry.text for match in background.matches],
            tuned=tuned.strip(),
            base=base.strip(),
            first=self._random.choice((TUNED, BASE)),
            choice=NEITHER,
            adapters=order.adapters,
            sources=[match.place for match in background.matches],
        )
        trial = Trial(ballot, self.api.passages.remember(background.matches))
        key = secrets.token_urlsafe(12)
        self.open[key] = trial
        while len(self.open) > MOST_OPEN:
            self.open.popitem(last=False)
        return {"id": key, "question": text, "answers": trial.answers, "same": trial.same, "sources": trial.sources}

    def vote(self, key: Any, choice: Any) -> dict[str, Any]:
        """Keep a vote. Equal answers take no preference."""
        if choice not in CHOICES:
            raise Refused(400, f"choice: expected one of {', '.join(CHOICES)}", "choice")
        trial = self.open.get(key) if isinstance(key, str) else None
        if trial is None:
            raise Refused(404, "id: no such pair of answers; it has a vote already, or the server was started anew", "id")
        self.api.check_run()
        picked = NEITHER if choice == NEITHER or trial.same else trial.sides[CHOICES.index(choice)]
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            keep(self.folder, replace(trial.ballot, choice=picked, time=now))
        except FileNotFoundError:
            raise gone() from None
        del self.open[key]
        return self.state()

    def _draw(self) -> str:
        left = self._unasked(self.votes)
        if not left:
            raise Refused(404, "question: no held-out question is left; write one of your own", "question")
        return self._random.choice(left)

    def _unasked(self, votes: Sequence[Ballot]) -> list[str]:
        voted = {vote.request for vote in votes}
        return [text for text in self.heldout if text.strip() not in voted]


def keep(folder: Path, ballot: Ballot) -> None:
    """Add a vote to the run's file, which only its owner may read."""
    path = folder / VOTES
    touch_private(path)
    end_torn_line(path)
    append_jsonl(path, [asdict(ballot)])
