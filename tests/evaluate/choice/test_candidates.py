"""One list of what is compared: names, roles, and which of them each table takes."""

import pytest

from small_blocks import INFO
from sporeprint.errors import RecipeError
from sporeprint.evaluate.choice.candidates import (
    DECORRELATED,
    EMBEDDINGS,
    PAPER,
    RAW,
    SHORT,
    WHITE,
    Candidate,
    by_family,
    choices,
    distinct,
    family_table,
    full_table,
    role_of,
    short_table,
    title_of,
)
from sporeprint.features.combine import Combination

NAMES = list(INFO)  # embedding, a layer, views, two gradients


def roles(candidates):
    return {candidate.name: candidate.role for candidate in candidates}


def test_the_full_table_has_every_block_and_every_join_that_the_families_allow():
    assert roles(full_table(NAMES)) == {
        "embedding": "embedding",
        "embedding, white 0.5": "embedding",
        "embedding, white": "embedding",
        "cls-1": "control",
        "cls-1, white": "control",
        "simclr.views": "control",
        "simclr.views, white": "control",
        "kl alone": "block",
        "kl alone, white": "block",
        "simclr alone": "block",
        "simclr alone, white": "block",
        "embedding + kl": "combined",
        "embedding + simclr": "combined",
        "gradients alone": "block",
        "paper": "paper",
        "embedding + views, white": "control",
        "embedding + layers, white": "control",
        "embedding + layers + views, white": "control",
        "layers + views, white": "control",
        "embedding + gradients, white": "combined",
        "layers + gradients, white": "combined",
        "embedding + layers + gradients, white": "combined",
        "layers + views + gradients, white": "combined",
        "decorrelated": "combined",
    }
    assert roles(full_table(["embedding", "cls-1"])) == {
        "embedding": "embedding",
        "embedding, white 0.5": "embedding",
        "embedding, white": "embedding",
        "cls-1": "control",
        "cls-1, white": "control",
        "embedding + layers, white": "control",
        "decorrelated": "control",
    }
    assert list(roles(full_table(["embedding"]))) == list(EMBEDDINGS)


def test_a_control_has_no_gradient_in_it():
    for candidate in full_table(NAMES):
        if candidate.role == "control":
            assert not {"kl", "simclr"} & set(candidate.combination.members(NAMES))


def test_the_smaller_tables_are_parts_of_the_full_one():
    names = [*NAMES, "cls-2"]
    full = full_table(names)
    families = family_table(names)
    single = {"cls-1", "cls-1, white", "cls-2", "cls-2, white"}
    assert families == [candidate for candidate in full if candidate.name not in single]
    assert short_table(names) == [candidate for candidate in full if candidate.name in SHORT]
    assert [candidate.name for candidate in short_table(names)] == [RAW, WHITE, PAPER, DECORRELATED]
    assert [candidate.name for candidate in short_table(["embedding"])] == [RAW, WHITE, DECORRELATED]
    chosen = choices(names)
    known = {candidate.name: candidate.combination for candidate in full}
    for name in set(chosen) & set(known):
        assert chosen[name] == known[name]
    assert {"embedding, white", "embedding + layers, white", "layers + views + gradients, white"} <= set(chosen)


def test_white_means_one_thing_in_every_list():
    lists = [(entry.name, entry.combination) for entry in full_table(NAMES, 4)] + list(choices(NAMES).items())
    for name, combination in lists:
        white = combination.whiten == "auto" and combination.exponent == 1
        assert (", white" in name and ", white 0" not in name) == white, name
        assert combination.whiten in (None, "auto")


def test_a_store_of_one_gradient_has_the_papers_row_once():
    names = [candidate.name for candidate in family_table(["embedding", "kl"], 4)]
    joins = ["paper", "paper, PCA 4", "embedding + gradients, white", "decorrelated"]
    assert names == [*EMBEDDINGS, "kl alone", "kl alone, white", *joins]


@pytest.mark.parametrize(
    ("combination", "title", "role"),
    [
        (Combination(("kl",)), "kl alone", "block"),
        (Combination(("layers",), "auto"), "layers, white", "control"),
        (Combination(("layers", "kl"), "auto", exponent=0.5), "layers + kl, white 0.5", "combined"),
        (Combination(("kl",), 5, 3, 0.5), "kl alone, whitened to 5 dimensions, exponent 0.5, PCA 3", "block"),
        (Combination(("embedding",), 5), "embedding, whitened to 5 dimensions", "embedding"),
        (Combination(None, "auto", 4), "paper, white, PCA 4", "paper"),
        (Combination(("embedding", "layers"), weights=(1.0, 1.0)), "embedding + layers, families alike", "control"),
        (Combination(("embedding", "layers"), weights=(1.0, 2.0)), "embedding + layers, weighed", "control"),
    ],
)
def test_a_name_says_what_is_joined_and_how_and_a_role_what_it_is_there_for(combination, title, role):
    assert (title_of(combination), role_of(combination, NAMES)) == (title, role)


@pytest.mark.parametrize(
    ("blocks", "title"),
    [
        (("cls-1", "cls-2"), "layers, white 0.5"),
        (("embedding", "cls-1", "cls-2", "kl"), "embedding + layers + kl, white 0.5"),
        (("kl", "dino"), "gradients alone, white 0.5"),
        (("embedding", "cls-1"), "embedding + cls-1, white 0.5"),
        (("embedding", "dino.views"), "embedding + views, white 0.5"),
        (("dino.views",), "dino.views, white 0.5"),
        (("views",), "dino.views, white 0.5"),
        (("embedding", "layers", "views", "gradients"), "embedding + layers + views + gradients, white 0.5"),
    ],
)
def test_a_family_that_is_joined_whole_goes_by_its_name_and_one_block_by_its_own(blocks, title):
    names = ["embedding", "cls-1", "cls-2", "dino.views", "kl", "dino"]
    combination = Combination(blocks, "auto", exponent=0.5)
    assert title_of(combination, names) == title
    assert by_family(combination, names).members(names) == combination.members(names)


def test_equal_combinations_are_kept_once_under_the_first_name():
    same = {
        "a": Combination(("kl", "embedding")),
        "b": Combination(("embedding", "gradients")),
        "c": Combination(("embedding", "gradients"), weights=(1.0, 2.0)),
        "d": Combination(("embedding", "gradients"), size=2),
    }
    candidates = [Candidate(name, "", combination) for name, combination in same.items()]
    assert [candidate.name for candidate in distinct(candidates, ["embedding", "kl"])] == ["a", "c", "d"]
    with pytest.raises(RecipeError, match="no block of views"):
        distinct([Candidate("a", "", Combination("views"))], ["embedding"])


def test_the_choices_begin_with_the_references_and_try_each_combination_once():
    names = ["embedding", "cls-1", "cls-2", "dino.views", "kl", "dino"]
    listed = choices(names)
    assert list(listed)[:2] == ["embedding", "embedding, white 0.5"]
    ways = [
        (frozenset(combination.members(names).items()), combination.whiten, combination.exponent)
        for combination in listed.values()
    ]
    assert len(set(ways)) == len(ways)
    # Eleven sets: seven of the three families with the embedding, four with layers without it; raw, half-white, white.
    assert len(listed) == 3 + 3 * 11
    assert list(choices(["embedding"])) == [RAW, "embedding, white 0.5", WHITE]


def test_a_pca_to_nothing_is_refused():
    with pytest.raises(RecipeError, match="size=0"):
        full_table(NAMES, size=0)
