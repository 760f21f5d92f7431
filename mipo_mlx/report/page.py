"""The report stage: one self-contained HTML page that shows whether it worked, at what, and what it cost (report.html).

mipo-mlx report RUN
"""

from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from .. import recipe_loading
from ..evaluation import blind_votes, outcome, verdict
from ..evaluation.outcome import Outcome
from ..export import results
from ..export.system import without_profile
from ..files import rounds, write_text
from ..progress import Reporter, duration
from ..recipe import Evaluation, Recipe
from ..training import metrics
from . import comparisons, curves, measures, opening, record, signs
from .figures import in_words, shade

OUTCOMES = {verdict.WORKED: "better", verdict.WENT_WRONG: "worse"}  # how the verdict begins, and the colour beside it
UNTRAINED = "Not evaluated yet: training is not finished; mipo-mlx train with this run's recipe goes on with it."
UNEVALUATED = "Not evaluated yet: run mipo-mlx eval on this run."


def run(folder: Path, recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Write report.html from what the earlier stages left in `folder`."""
    text = render(folder, recipe)
    write_text(folder / "report.html", text)
    reporter.conclude(f"  {folder / 'report.html'}: {in_words(len(text.encode()))}, open it in a browser")
    return {"bytes": len(text.encode())}


def render(folder: Path, recipe: Recipe) -> str:
    """The page as text. All text of the user is escaped; the page loads nothing."""
    here = resources(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]  # capitalize would turn SHA into Sha
    page = environment.from_string(here.joinpath("page.html").read_text(encoding="utf-8"))
    css = Markup(here.joinpath("page.css").read_text(encoding="utf-8"))
    return page.render(css=css, **contents(folder, recipe)).lstrip()


def contents(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Everything that page.html shows, by its names there. A part whose file is missing is empty."""
    manifest = record.read(folder / "manifest.json")
    trained, stages = record.trained(manifest), manifest.get("stages", {})
    ended = len(trained) == recipe.rounds or any(summary.get("ends_rounds") for summary in trained)
    unfinished = bool(stages) and not ended
    # Where the manifest has no evaluation, eval.json is of an earlier training.
    evaluated = (folder / "eval.json").exists() and not unfinished and (not stages or "evaluation" in stages)
    result = outcome.read(folder) if evaluated else Outcome(recipe.model, verdict=UNTRAINED if unfinished else UNEVALUATED)
    heldout, fresh, judged = result.heldout, result.fresh, result.judged
    likelier = fresh.log_ratio_per_answer.value if fresh else None
    rows, pairs = metrics.read(folder), [record.read(path) for path in rounds(folder, "pairs.json")]
    candidates = heldout.candidates if heldout else recipe.pairs.candidates
    kept = next(((s["round"], s["best_step"]) for s in reversed(trained) if s["taken"]), None)
    colour = next((tone for begin, tone in OUTCOMES.items() if result.verdict.startswith(begin)), "open")
    headline = verdict.headline(result)
    warnings = signs.signs(result, rows, pairs, trained, recipe)
    unread = record.read(folder / "sources.json").get("files", {}).get("skipped", [])
    return dict(
        name=recipe.name or folder.name,
        model=recipe.model,
        created=manifest.get("created", "").split("T")[0],
        headline=headline,
        verdict=result.verdict if result.verdict != headline else "",
        colour=colour,
        scenes=opening.scenes(result),
        origin=opening.origin(result),
        added=opening.added(result),
        advice=opening.advice(folder, result, colour, warnings),
        tiles=measures.tiles(result),
        about=_about(result, manifest),
        apart_by=result.apart_by,
        gained=measures.gained(result),
        left_out=fresh.choices_left_out if fresh else [],
        no_interval=measures.no_interval(result),
        costs=measures.costs(result),
        fresh=fresh,
        scope=measures.scope(fresh),
        likelier="" if likelier is None else f"{likelier:.1f}",
        judge=judged.judge if judged else "",
        in_use=comparisons.in_use(result.use),
        judged=" ".join([comparisons.votes(judged), *comparisons.second_opinions(judged)]).strip(),
        blind=blind_votes.sentence(blind_votes.tally(folder, recipe)),
        baselines=comparisons.baselines(result.baselines, fresh),
        drift=signs.drift(result.unprompted),
        kinds=comparisons.kinds(result.kinds),
        leak=signs.leak_test(result.leak),
        signs=warnings,
        charts=curves.training_charts(rows, candidates, recipe.training, kept),
        validated=any(metrics.of_validation(row) for row in rows),
        pmi=curves.pmi_charts(fresh, pairs),
        gallery=[(e.request, e.context, shade(e.base.words), shade(e.tuned.words)) for e in result.gallery],
        data=record.data(folder),
        skipped=[(row["file"], row["why"]) for row in unread],
        ways=[] if unfinished else record.ways(folder),
        without_profile="" if unfinished else without_profile(folder, recipe),
        record=record.record(folder, manifest, recipe),
        recipe=recipe_loading.dump(_evaluated_with(recipe, result)),
        hashes=results.compared(folder),
    )


def _evaluated_with(recipe: Recipe, result: Outcome) -> Recipe:
    """The recipe with the settings behind eval.json: `mipo-mlx eval --set` changes them for that evaluation alone."""
    return recipe.model_copy(update={"evaluation": Evaluation(**result.settings)}) if result.settings else recipe


def _about(result: Outcome, manifest: dict[str, Any]) -> str:
    parts, heldout = [], result.heldout
    if heldout:
        over = f" over {heldout.contexts} contexts" if heldout.contexts else ""
        parts.append(f"{heldout.pairs} held-out pairs from {heldout.grids} grids{over}")
    if result.fresh:
        parts.append(f"{result.fresh.answers} fresh answers of each model")
    spent = sum(seconds for _, seconds in record.seconds(manifest))
    if spent:
        parts.append(f"{duration(spent)} of work in all")
    return ", ".join(parts)
