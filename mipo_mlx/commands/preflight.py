"""What would end a run after a night of work is checked when it begins: before a stage computes, before `--fresh` erases.

Tokenizers, configurations, the names of weights and, with --fresh, the notes are read; weights are not.
"""

import tempfile
from collections.abc import Collection
from pathlib import Path

from .. import backend
from .. import run as runs
from ..errors import UserError
from ..memory import contexts
from ..progress import Reporter
from ..recipe import Dataset, Recipe
from ..run import Run
from ..sources.note import Tally
from ..sources.sparing import warn_of_spared


def check(run: Run, upto: str, fresh: bool, reporter: Reporter) -> None:
    """Raise what the steps up to `upto` would raise hours later. With `fresh`, also raise what would end them at once: by then
    the run that was there would be gone."""
    planned = run.steps()
    ahead = {runs.parse(step)[0] for step in planned[: planned.index(upto) + 1] if fresh or not run.done(step)}
    settings(run.recipe, ahead, reporter)
    if "training" in ahead and run.recipe.training.bake.answers:
        from ..memory.settling import makes_profile

        if not makes_profile(run.recipe):
            contexts.check_bake(run.folder, run.recipe, fresh)
    if not fresh and run.done("pairs"):
        profile(run)
    if fresh and (run.folder / "recipe.yaml").exists():
        inputs(run)
    if "pairs" in ahead and not backend.on_cpu():
        from . import self_test

        self_test.require()


def profile(run: Run) -> None:
    """Raise UserError where the run's pairs were sampled with another profile than the one that is there now."""
    summary = run.summary("pairs")
    if summary and summary.get("profile") != contexts.digest(run.folder, run.recipe):
        raise UserError(
            f"{run.folder / contexts.PROFILE}: changed since the pairs were sampled with it; undo the change, or pass --fresh to "
            "start the run over with it (what was edited by hand stays)"
        )


def settings(recipe: Recipe, stages: Collection[str], reporter: Reporter) -> None:
    """Raise UserError for what one of `stages` would refuse whatever the stages before it find."""
    if "training" in stages:
        from ..training import monitor

        monitor.check(recipe.training.loggers)
    if "pairs" in stages:
        from ..models.load import check_chat_template, check_weights, load_tokenizer
        from ..pairs.score import check_same_tokenizer

        for name in {recipe.model, recipe.training.reference} - {"base"}:
            check_weights(name)
        tokenizer = load_tokenizer(recipe.model)
        check_chat_template(tokenizer, recipe.model)
        if recipe.training.reference != "base":
            check_same_tokenizer(recipe.training.reference, tokenizer)
    if "evaluation" in stages:
        _evaluation(recipe, reporter)
    if "export" in stages:
        from ..export import export

        export.check(recipe)


def inputs(run: Run) -> None:
    """Raise what the stages would raise for the model, the notes, prompts and questions, or the file of pairs."""
    from ..files import read_records
    from ..models.load import load_tokenizer, model_config
    from ..models.prompts import window_of
    from ..models.skeleton import skeleton
    from ..pairs.exchange import import_pairs
    from ..pairs.grids import make_plan
    from ..records import Context, Prompt
    from ..sources import own_choice
    from ..sources import read as sources

    recipe, quiet = run.recipe, Reporter(quiet=True)
    skeleton(recipe.model)
    if recipe.pairs.file:
        import_pairs(Path(recipe.pairs.file), load_tokenizer(recipe.model), recipe, window_of(model_config(recipe.model), 0))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if isinstance(recipe.evaluation.abilities, Dataset):
            from ..sources import questions

            questions.prepare(folder, recipe.evaluation.abilities, quiet)
        own_choice.copy(run.folder, folder)
        sources.run(folder, recipe, quiet)
        if not recipe.pairs.file and recipe.sources.context != "profile":  # which is not written yet
            make_plan(recipe, read_records(folder / "contexts.jsonl", Context), read_records(folder / "prompts.jsonl", Prompt), 1)


def _evaluation(recipe: Recipe, reporter: Reporter) -> None:
    from ..evaluation import abilities
    from ..evaluation.endpoint import KEY, api_key, endpoints, is_url

    given = recipe.evaluation.abilities
    if isinstance(given, str):
        tally = Tally()
        abilities.read_questions(Path(given).expanduser(), recipe.evaluation.abilities_questions, recipe.seed, tally)
        warn_of_spared("questions of evaluation.abilities", tally, reporter)
    if not recipe.evaluation.judge and (recipe.evaluation.judge_model or recipe.evaluation.judge_mode == "rubric"):
        reporter.say("  evaluation.judge: none is named, so judge_mode and judge_model change nothing")
    for name in recipe.evaluation.judges:
        if name != "base" and not is_url(name):
            _judge(name)
    for endpoint in endpoints(recipe.evaluation):
        if not endpoint.local and not api_key():  # some want none
            reporter.warn(
                f"evaluation.judge: {endpoint.host} will be asked without a key; if it wants one, put it into the environment "
                f"variable {KEY}"
            )


def _judge(name: str) -> None:
    from ..models.load import check_chat_template, check_weights, load_tokenizer
    from ..models.skeleton import skeleton

    try:
        check_weights(name)
        skeleton(name)
        check_chat_template(load_tokenizer(name), name)
    except UserError as error:
        raise UserError(f"evaluation.judge: {error}") from None
