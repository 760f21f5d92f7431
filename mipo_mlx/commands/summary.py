"""What a finished command prints: the figures before and after, where every file lies, and how to use the result."""

from pathlib import Path

from ..errors import UserError
from ..export.system import without_profile
from ..files import size
from ..models.load import EMBEDDED
from ..run import Run, existing_run
from .options import RunOptions

TOO_SMALL = (
    f"{EMBEDDED} has 135M parameters. They are enough to learn which note an answer belongs to: see the figures above. They are\n"
    "too few to write answers that read well, before as after. `mipo-mlx init` proposes a larger base that fits this machine."
)


def evaluation(run: Run) -> str:
    """One everyday request with the answers, the verdict and the headline figures of eval.json."""
    from ..evaluation import outcome
    from ..report import measures
    from ..report.comparisons import baselines, in_use, second_opinions, votes
    from ..report.opening import scenes

    result = outcome.read(run.folder)
    lines = []
    for scene in scenes(result)[:1]:
        lines = [scene.request, *(f"  {who}: {' '.join(text.split())}" for who, text in scene.answers), ""]
    lines.append(result.verdict)
    for label, before, after in measures.brief(result):
        interval = f" ({after.interval})" if after.interval else ""
        lines.append(f"  {label:46s} {before:>7s} -> {after.value}{interval}")
    lines += [f"  {line}" for line in in_use(result.use)]
    if judged := result.judged:
        lines += [f"  {judged.judge}: {votes(judged)}", *(f"  {line}" for line in second_opinions(judged))]
    if compared := baselines(result.baselines, result.fresh):
        labels = [label for label, _ in compared[0][1]]
        lines.append(f"  {'':32s}" + "".join(f"  {label:>6s}" for label in labels))
        for name, cells in compared:
            lines.append(f"  {name:32s}" + "".join(f"  {cell.value:>{max(6, len(label))}s}" for label, cell in cells))
    return "\n".join(lines)


def comparison(options: RunOptions, other: str, baselines: bool) -> str:
    """Two finished runs against each other, by what their evaluations measured."""
    from ..evaluation.compare import compare, show

    if options.sets or baselines:
        raise UserError(f"{other}: two runs are compared by what they measured; --set and --baselines need one run alone")
    folders = [existing_run(Path(name), options.root).folder for name in (options.target or "", other)]
    return "\n".join(show(compare(folders[:1], folders[1:])))


def recipes(builtin: dict[str, Path]) -> str:
    """The built-in recipes by name, each with the sentence that it opens with."""
    lines = [f"{name:22s}{path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}" for name, path in builtin.items()]
    folder = next(iter(builtin.values())).parent
    return "\n".join([*lines, f"`mipo-mlx train NAME` takes one by its name; their files are in {folder}"])


def files(run: Run) -> str:
    lines = [f"files in {run.folder}/"]
    for path in sorted(run.folder.iterdir()):
        if not path.name.startswith("."):
            lines.append(f"  {path.name + ('/' if path.is_dir() else ''):28s} {size(path) / 1e6:10,.1f} MB")
    return "\n".join(lines)


def usage(run: Run) -> str:
    from ..report.record import ways

    lines = ["use it", *(f"  {way.command}{f'   # {way.kept}' if way.bad else ''}" for way in ways(run.folder))]
    if bare := without_profile(run.folder, run.recipe):
        lines.append(bare)
    return "\n".join(lines)


def final(run: Run) -> str:
    """All of it, for the end of `mipo-mlx train`."""
    return "\n\n".join([evaluation(run), *([TOO_SMALL] if run.recipe.model == EMBEDDED else []), files(run), usage(run)])
