"""What a context tells: a passage, the profile, or both; and what of profile.md is for people only."""

import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.commands.chat import find_context
from mipo_mlx.errors import UserError
from mipo_mlx.files import write_records
from mipo_mlx.memory import contexts
from mipo_mlx.memory.contexts import plain, read_contexts, sections
from mipo_mlx.recipe_loading import RecipeError
from mipo_mlx.records import Context
from mipo_mlx.serving.assistant import NamedContext

PROFILE = """# Profile

<!-- made from
two notes -->

- The user keeps bees. <!-- food/honey.md:3, bees.md:1 -->
* The user sings alto [choir.md:12]
2. The user is 40 (ages.md:7).

## Work
The user drafts 3:1 maps [of rivers].
"""
TOLD = "The user keeps bees.\nThe user sings alto\nThe user is 40 (ages.md:7)."


def recipe_of(*overrides):
    return recipe_loading.parse("model: none\n", overrides=list(overrides))


def several(context):
    return recipe_of(f"sources.context={context}", "sources.columns={note: user}")


@pytest.fixture
def folder(tmp_path):
    rows = [("a-1", "Ann", "I bake."), ("a-2", "Ann", "I row."), ("b-1", "Bo  Lee", "I sing."), ("c-1", "Cy", "I run.")]
    write_records(
        tmp_path / "contexts.jsonl",
        [Context(name, text, note, f"{note}.md", 1, "train" if note == "Ann" else "heldout", 3) for name, note, text in rows],
    )
    return tmp_path


def test_comments_bullets_headings_and_sources_are_not_told():
    assert sections(PROFILE) == {"": TOLD, "Work": "The user drafts 3:1 maps [of rivers]."}
    assert plain(PROFILE) == f"{TOLD}\nThe user drafts 3:1 maps [of rivers]."
    assert plain("The user is 40 (ages.md:7)") == "The user is 40"
    assert plain("Hi <!-- never closed\nsecret") == "Hi"
    assert plain("<!-- nothing -->\n# Title\n") == ""


def test_passages_need_no_profile(folder):
    for context in ("auto", "passage"):
        passages = read_contexts(folder, recipe_of(f"sources.context={context}"))
        assert [c.full_text for c in passages] == ["I bake.", "I row.", "I sing.", "I run."]
    (folder / "profile.md").write_text(PROFILE)
    assert read_contexts(folder, recipe_of("sources.context=passage")) == passages


def test_auto_is_both_where_there_is_a_profile_and_stays_as_it_was_settled(folder, tmp_path):
    """Each part of a run that asks under contexts reads them with `read_contexts`, and the hash of what is told with `digest`."""
    auto, passage = recipe_of(), recipe_of("sources.context=passage")
    assert contexts.context_of(folder, auto) == "passage"
    (folder / "profile.md").write_text("<!-- nothing yet -->\n# Profile\n")
    assert contexts.context_of(folder, auto) == "passage"
    (folder / "profile.md").write_text("- The user keeps bees.\n")
    assert contexts.context_of(folder, auto) == "both" and read_contexts(folder, auto) == read_contexts(
        folder, recipe_of("sources.context=both")
    )
    assert (
        contexts.context_of(folder, several("auto")) == contexts.context_of(folder, recipe_of("pairs.file=some.jsonl")) == "passage"
    )
    assert contexts.settle(folder, auto) == "both"
    (folder / "profile.md").unlink()
    with pytest.raises(UserError, match=r"profile.md: missing"):
        read_contexts(folder, auto)
    (folder / "context.json").unlink()
    assert contexts.settle(folder, auto) == "passage"
    (folder / "profile.md").write_text("- The user keeps bees.\n")
    assert read_contexts(folder, auto) == read_contexts(folder, passage) and contexts.digest(folder, auto) is None
    assert contexts.settle(folder, auto) == "passage"  # as in an update of the notes
    (folder / "context.json").unlink()
    assert contexts.settle(folder, passage) == "passage" and not (folder / "context.json").exists()


def test_both_puts_the_authors_profile_before_every_passage(folder):
    (folder / "profile.md").write_text("- The user keeps bees. <!-- a.md:1 -->\n")
    result = read_contexts(folder, recipe_of("sources.context=both"))
    assert [c.full_text for c in result] == [
        f"The user keeps bees.\n\n{text}" for text in ("I bake.", "I row.", "I sing.", "I run.")
    ]
    assert [c.text for c in result] == ["I bake.", "I row.", "I sing.", "I run."]


def test_people_have_their_own_profiles(folder):
    (folder / "profile.md").write_text("## Ann\n- The user bakes.\n## Bo Lee\n- The user sings alto.\n")
    both = read_contexts(folder, several("both"))
    assert [c.full_text for c in both] == [
        "The user bakes.\n\nI bake.",
        "The user bakes.\n\nI row.",
        "The user sings alto.\n\nI sing.",
        "I run.",
    ]
    alone = read_contexts(folder, several("profile"))
    assert [(c.id, c.note, c.split, c.full_text) for c in alone] == [
        ("a-1", "Ann", "train", "The user bakes."),
        ("b-1", "Bo  Lee", "heldout", "The user sings alto."),
    ]


@pytest.mark.parametrize("values", [recipe_of("sources.context=both"), several("profile")])
def test_a_profile_that_is_missing_or_says_nothing(folder, values):
    with pytest.raises(UserError, match=r"profile.md: missing.*mipo-mlx profile"):
        read_contexts(folder, values)
    (folder / "profile.md").write_text("# Profile\n<!-- none -->\n")
    with pytest.raises(UserError, match="says nothing about"):
        read_contexts(folder, values)


def test_one_authors_profile_cannot_be_a_context_by_itself():
    with pytest.raises(RecipeError) as error:
        recipe_of("sources.context=profile")
    assert "one author has one profile" in str(error.value) and "write both" in str(error.value)
    assert several("profile").sources.context == "profile"
    recipe_of("sources.context=profile", "sources.dataset={name: a/b, columns: {context: bio, note: user}}")
    with pytest.raises(RecipeError, match="one author"):
        recipe_of("sources.context=profile", "sources.dataset={name: a/b, columns: {context: bio}}")


def test_the_hash_is_that_of_what_is_told(folder):
    both = recipe_of("sources.context=both")
    assert contexts.digest(folder, both) is None
    (folder / "profile.md").write_text("- The user bakes. <!-- a.md:1 -->\n")
    first = contexts.digest(folder, both)
    (folder / "profile.md").write_text("# Me\n- The user bakes.\n")
    assert contexts.digest(folder, both) == first == contexts.digest(folder, recipe_of())
    (folder / "profile.md").write_text("- The user bakes rye.\n")
    assert contexts.digest(folder, both) != first
    assert contexts.digest(folder, recipe_of("sources.context=passage")) is None


def test_chat_gets_contexts_as_training_does(folder):
    assert find_context(folder, recipe_of(), "Ann") == NamedContext(("I bake.", "I row."))
    (folder / "profile.md").write_text("- The user keeps bees.\n")
    both = recipe_of("sources.context=both")
    assert find_context(folder, both, "Ann") == NamedContext(("I bake.", "I row."), "The user keeps bees.")
    assert find_context(folder, both, "b-1") == NamedContext(("I sing.",), "The user keeps bees.")
    (folder / "profile.md").write_text("## Ann\n- The user bakes.\n")
    assert find_context(folder, several("profile"), "Ann") == NamedContext((), "The user bakes.")


def test_the_profile_of_one_author_alone(folder):
    assert contexts.profile_of(folder, recipe_of()) == ""
    (folder / "profile.md").write_text("# Profile\n- The user bakes. <!-- a.md:1 -->\n- The user rows.\n")
    assert contexts.profile_of(folder, recipe_of()) == "The user bakes.\nThe user rows."
    assert contexts.profile_of(folder, several("both")) == ""
