"""What the code before the rooms made (tests/data/before_rooms) opens, goes on, and gives the same numbers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from sporeprint import Combination, Fungi, Recipe, Store, open_source
from sporeprint.data.images import load_image
from sporeprint.errors import RecipeError, Removed
from sporeprint.features import saved
from sporeprint.run.extract import Settings, extract
from sporeprint.run.store_pair import open_pair
from sporeprint.store.atomic import digest_of_json, record_of, seal, unseal

BEFORE = Path(__file__).parents[1] / "data" / "before_rooms"
RECIPES = json.loads((BEFORE / "recipes.json").read_text())
REMOVED = json.loads((BEFORE / "removed.json").read_text())
GONE_OPTIONS = ("kronecker", "view_moments")
GONE = ("windows", "scatter", "scrambled", "unit_negatives", "own_image", "temper_negatives", *GONE_OPTIONS)
TOLERANCE = 1e-5  # float32 on another machine


@pytest.fixture(scope="module")
def expected():
    return np.load(BEFORE / "expected.npz")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_same_json_and_fingerprint(name):
    recipe = Recipe.from_json(RECIPES[name]["json"])
    assert recipe.to_json() == RECIPES[name]["json"]
    assert recipe.fingerprint() == RECIPES[name]["fingerprint"]
    assert recipe.blocks_json() == RECIPES[name]["blocks"]


@pytest.mark.parametrize("name", GONE)
def test_recipes_that_name_what_was_removed_are_refused_with_a_sentence(name):
    with pytest.raises(Removed, match=r"was removed: .*; use "):
        Recipe.from_json(REMOVED[name])


def test_a_saved_fungi_gives_the_same_features(expected):
    fungi = Fungi.load(BEFORE / "fungi")
    images = [load_image(path) for path in sorted((BEFORE / "pictures/test").rglob("*.png"))]
    blocks = fungi.blocks(images, ids=["a", "b", "c"])
    assert sorted(blocks) == sorted(name.removeprefix("block ") for name in expected if name.startswith("block "))
    for name, values in blocks.items():
        assert np.abs(values - expected[f"block {name}"]).max() < TOLERANCE
    assert np.abs(fungi.transform(images, ids=["a", "b", "c"]) - expected["features"]).max() < TOLERANCE
    assert np.abs(fungi.dense(images[:1], ids=["a"]) - expected["dense"]).max() < TOLERANCE


def test_stores_open_verify_and_go_together():
    train, test = open_pair(BEFORE / "train.store", BEFORE / "test.store")
    for store in (train, test):
        store.verify()
    assert (len(train), len(test), train.labels.tolist()) == (6, 3, ["a", "a", "a", "b", "b", "b"])
    features = Combination(whiten="auto").fit(train.blocks()).transform(test.blocks())
    assert features.shape[0] == 3
    assert np.isfinite(features).all()


def test_a_test_set_is_computed_with_a_fit_of_then(tmp_path):
    source = open_source(BEFORE / "pictures/test")
    made = extract(source, tmp_path / "test", fit_from=BEFORE / "train.store", settings=Settings(shard_rows=4))
    same_rows(made, Store.open(BEFORE / "test.store"))


def test_an_unfinished_store_goes_on_and_computes_again_what_names_no_store(tmp_path):
    shutil.copytree(BEFORE / "unfinished.store", tmp_path / "store")
    recipe = Recipe.from_json({**RECIPES["fitted"]["json"], "size": None, "combination": "paper", "dense": None})
    shutil.copytree(BEFORE / "pictures/train", tmp_path / "pictures/train")
    for path in (tmp_path / "pictures/train").rglob("*.png"):
        os.utime(path, (1_700_000_000, 1_700_000_000))  # as when the store was begun: a source knows its files by that
    source = open_source(tmp_path / "pictures/train")
    with pytest.warns(UserWarning, match="shard 0 is dropped .* does not say which store it is of"):
        made = extract(source, tmp_path / "store", recipe, settings=Settings(shard_rows=4))
    same_rows(made, Store.open(BEFORE / "train.store"))


def store_of_then(folder: Path, recipe: dict[str, object]) -> Path:
    """The training store as an earlier version would have made it by another recipe."""
    shutil.copytree(BEFORE / "train.store", folder)
    header, manifest = unseal("plan", folder / "plan.json"), unseal("manifest", folder / "manifest.json")
    header["plan"]["recipe"] |= {name: recipe[name] for name in ("projection", "view_moments")}
    description, tensors = saved.unpack_parts(saved.read_folder(folder / "state"), str(folder))
    files = saved.pack_parts({**description, "recipe": recipe}, tensors)
    manifest |= {"plan": digest_of_json(header), "states": {name: record_of(data) for name, data in files.items()}}
    for file_name, data in files.items():
        (folder / "state" / file_name).write_bytes(data)
    (folder / "plan.json").write_bytes(seal("plan", header))
    (folder / "manifest.json").write_bytes(seal("manifest", manifest))
    return folder


@pytest.mark.parametrize("name", GONE_OPTIONS)
def test_a_store_of_what_was_removed_opens_and_is_neither_fitted_from_nor_gone_on_with(name, tmp_path):
    folder = store_of_then(tmp_path / "store", REMOVED[name])
    Store.open(folder).verify()
    source = open_source(BEFORE / "pictures/test")
    with pytest.raises(Removed, match=rf"{name}.* was removed: .*; use ") as fitted:
        extract(source, tmp_path / "test", fit_from=folder)
    with pytest.raises(Removed, match=r"store' was made by an earlier version: ") as resumed:
        extract(source, folder, Recipe(backbone="tiny"), settings=Settings(shard_rows=4))
    assert str(resumed.value).endswith(f": {fitted.value}")
    assert not (tmp_path / "test").exists()


@pytest.mark.parametrize("name", GONE_OPTIONS)
def test_the_command_line_says_of_a_recipe_file_what_was_removed(name, tmp_path, run):
    (tmp_path / "recipe.json").write_text(json.dumps(REMOVED[name]))
    words = ["extract", BEFORE / "pictures/test", "--out", tmp_path / "store", "--recipe", tmp_path / "recipe.json"]
    status, out, err = run(*words)
    with pytest.raises(RecipeError) as refused:
        Recipe.from_json(REMOVED[name])
    assert (status, out) == (2, "")
    assert str(refused.value) in " ".join(err.split())
    assert not (tmp_path / "store").exists()


def test_the_command_line_says_that_a_projection_was_removed(tmp_path, run):
    words = ["extract", BEFORE / "pictures/test", "--out", tmp_path / "store", "--backbone", "tiny"]
    status, out, err = run(*words, "--projection", "kronecker")
    assert (status, out) == (2, "")
    assert "projection 'kronecker' was removed: it kept the cosines" in " ".join(err.split())
    assert "use tensorsketch" in err


def same_rows(made: Store, before: Store) -> None:
    assert (made.ids, made.block_names) == (before.ids, before.block_names)
    for name, values in before.blocks().items():
        assert np.abs(made.blocks()[name] - values).max() < TOLERANCE
