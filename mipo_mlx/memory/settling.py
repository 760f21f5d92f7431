"""What the contexts of a run tell, settled before its pairs are sampled: the profile is made where the recipe wants one.

`sources.profile: auto` makes it where the base is large enough to write facts that are worth telling. Its facts are checked all the
same (facts.py, distil.py). The exported files then carry it, and with `sources.context: auto` each context begins with it.
"""

from pathlib import Path

from ..errors import Failure
from ..models.load import LoadedModel
from ..models.skeleton import skeleton
from ..progress import Reporter
from ..recipe import Recipe
from .contexts import AUTO, CHOSEN, PROFILE, insists_on_profile, of_people, settle
from .distil import write_profile

LARGE = 1_000_000_000  # parameters from which a base writes a profile by itself; a guess, no base of this size was measured


def settle_contexts(folder: Path, recipe: Recipe, loaded: LoadedModel, reporter: Reporter) -> None:
    """Make the profile where it is wanted and missing, and keep what contexts tell.

    Where contexts insist on a profile (`both`, `profile`), raises Failure for notes that support no fact. Else the run goes on
    without one, and says why.
    """
    if insists_on_profile(recipe):
        write_profile(folder, recipe, loaded, reporter)
        return
    if lacks_profile(folder, recipe):
        try:
            write_profile(folder, recipe, loaded, reporter)
        except Failure as error:
            reporter.warn(f"{error}; the run goes on without a profile")
    settle(folder, recipe)


def lacks_profile(folder: Path, recipe: Recipe) -> bool:
    """Whether the pairs stage is still to write the profile."""
    if (folder / PROFILE).exists():
        return False
    return insists_on_profile(recipe) or (makes_profile(recipe) and not (folder / CHOSEN).exists())


def makes_profile(recipe: Recipe) -> bool:
    """Whether the pairs stage makes a profile of its own accord: of one owner's notes alone."""
    if recipe.pairs.file or of_people(recipe) or not (recipe.sources.notes or recipe.sources.dataset):
        return False
    wanted = recipe.sources.profile
    return skeleton(recipe.model)[1] >= LARGE if wanted == AUTO else bool(wanted)
