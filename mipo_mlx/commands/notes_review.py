"""The passages of a recipe's notes with the owner's choice, for the page and the text of `mipo-mlx notes`."""

from typing import Any

from ..errors import UserError
from ..files import make_private
from ..progress import Reporter
from ..run import Run
from ..sources.listing import Listing, listing
from ..sources.note import Tally
from ..sources.own_choice import read_choice
from ..sources.read import pieces


class Review:
    """The notes of a run's recipe, read once, and the owner's choice, which is written at every change.

    Raises UserError for a recipe without notes.
    """

    def __init__(self, run: Run, reporter: Reporter) -> None:
        from ..models.load import load_tokenizer
        from ..models.prompts import count_tokens

        if run.recipe.pairs.file:
            raise UserError(f"pairs.file: {run.recipe.pairs.file}: this recipe reads no notes, so there are none to choose from")
        tokenizer = load_tokenizer(run.recipe.model)
        self.run, self.tally = run, Tally()
        self.passages = pieces(run.recipe, lambda text: count_tokens(tokenizer, text), reporter, self.tally)
        self.own = read_choice(run.folder, run.recipe.sources)

    def listing(self) -> Listing:
        return listing(self.run.recipe, self.passages, self.own, self.tally)

    def mark(self, keep: bool | None, place: str | None, number: int | None) -> None:
        """Keep (True), drop (False) or leave to the program (None) a file or folder, or the passage of this number."""
        self.own.mark(keep, place or "", None if number is None else self.passages[number])
        make_private(self.run.folder)
        self.own.write(self.run.folder)

    def marks(self) -> dict[str, Any]:
        """The owner's choice for the page: by place, and by the number of each passage that a mark is for."""
        listed = ((number, self.own.of_passage(passage)) for number, passage in enumerate(self.passages) if self.own.passages)
        return {"places": self.own.places, "passages": {number: keep for number, keep in listed if keep is not None}}

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "file": row.passage.source,
                "line": row.passage.line,
                "text": row.passage.text,
                "rank": round(sum(row.passage.signs.values()), 2),
                "why": row.why,
                "state": row.state,
                "used": row.used,
            }
            for row in self.listing().rows
        ]
