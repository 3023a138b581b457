"""A store made by `extract` is opened as a fitted Fungi."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from small import noise_pictures, small_backbone
from sporeprint import DINO, KL, Combination, Fungi, Recipe, Store, compare, select
from sporeprint.cli.app import app
from sporeprint.data.rows import ListSource
from sporeprint.errors import BackboneError, RecipeError, SporeprintWarning, StoreError
from sporeprint.features.combine import named
from sporeprint.objectives.views.image import Crops
from sporeprint.report.page import write_report
from sporeprint.run.extract import extract

pytestmark = pytest.mark.usefixtures("few_penalties")
RECIPE = Recipe(backbone="tiny", objectives=[KL(latent=8), DINO(latent=8, augmentation=Crops(2, 2))], layers=2)


def striped(count, seed):
    """Pictures of two classes: stripes across or along, under noise; with their labels."""
    rng = np.random.default_rng(seed)
    labels = ["across" if at % 2 else "along" for at in range(count)]
    stripes = (np.arange(32) // 4 % 2 * 90)[:, None, None]
    pictures = []
    for label in labels:
        base = np.broadcast_to(stripes if label == "across" else stripes.transpose(1, 0, 2), (32, 32, 3))
        pictures.append(Image.fromarray((base + rng.integers(0, 160, (32, 32, 3))).astype(np.uint8)))
    return pictures, labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pictures, labels = striped(24, 0)
    folder = tmp_path_factory.mktemp("load") / "train.store"
    extract(ListSource(pictures, labels=labels), folder, RECIPE)
    return folder


@pytest.fixture(scope="module")
def test_pictures():
    return striped(8, 1)


def fitted_by_hand(folder, combination, pictures):
    store = Store.open(folder)
    fungi = Fungi(RECIPE)
    fungi.restore(store.read_state, "the store")
    return named(combination).fit(store.blocks()).transform(fungi.blocks(pictures))


def test_a_store_gives_a_fitted_fungi_with_its_recipes_combination(folder, test_pictures):
    pictures, _ = test_pictures
    fungi = Fungi.load(folder)
    np.testing.assert_array_equal(fungi.transform(pictures), fitted_by_hand(folder, "paper", pictures))


def test_a_store_gives_the_features_that_fitting_on_its_samples_gives(folder, test_pictures):
    pictures, _ = test_pictures
    samples, _ = striped(24, 0)
    expected = Fungi(RECIPE).fit(samples).transform(pictures)
    np.testing.assert_allclose(Fungi.load(folder).transform(pictures), expected, atol=1e-5)


@pytest.mark.parametrize("combination", ["decorrelated", Combination(("embedding", "gradients"), whiten=4)])
def test_a_store_takes_another_combination(folder, test_pictures, combination):
    pictures, _ = test_pictures
    fungi = Fungi.load(folder, combination=combination)
    np.testing.assert_array_equal(fungi.transform(pictures), fitted_by_hand(folder, combination, pictures))


def test_the_recipes_size_stays_with_another_combination(tmp_path):
    pictures, labels = striped(8, 0)
    extract(ListSource(pictures, labels=labels), tmp_path / "s", replace(RECIPE, size=5))
    for combination in (None, "decorrelated", select):
        assert Fungi.load(tmp_path / "s", combination=combination).transform(pictures[:2]).shape == (2, 5)


def test_select_chooses_by_the_stores_labels_as_loo_of_the_command_line_does(folder, test_pictures, tmp_path):
    pictures, labels = test_pictures
    store = Store.open(folder)
    choice = select(store.blocks(), store.labels)
    fungi = Fungi.load(folder, combination=select)
    expected = fitted_by_hand(folder, choice.combination, pictures)
    np.testing.assert_array_equal(fungi.transform(pictures), expected)
    np.testing.assert_array_equal(Fungi.load(folder, combination=choice).transform(pictures), expected)
    recombined = Fungi.load(folder).recombine(store.blocks(), choice.combination)
    np.testing.assert_array_equal(recombined.transform(pictures), expected)
    extract(ListSource(pictures, labels=labels), tmp_path / "test.store", fit_from=folder)
    arguments = ["knn", str(folder), str(tmp_path / "test.store"), "--combination", "loo", "--json"]
    by_neighbours = select(store.blocks(), store.labels, predictors=("kNN",))
    assert by_neighbours.name in CliRunner().invoke(app, arguments).output


def test_what_compare_chose_is_taken_from_the_comparison_and_from_its_file(folder, test_pictures, tmp_path):
    pictures, labels = test_pictures
    store = Store.open(folder)
    fungi = Fungi.load(folder)
    comparison = compare(store.blocks(), store.labels, fungi.blocks(pictures), labels, store.blocks_info)
    expected = fitted_by_hand(folder, comparison.entry(comparison.chosen).combination, pictures)
    np.testing.assert_array_equal(Fungi.load(folder, combination=comparison).transform(pictures), expected)
    write_report(comparison, tmp_path)
    for path in (tmp_path / "comparison.json", str(tmp_path / "comparison.json")):
        np.testing.assert_array_equal(Fungi.load(folder, combination=path).transform(pictures), expected)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(StoreError, match=r"other.json' cannot be read as a comparison.*compare --report FOLDER"):
        Fungi.load(folder, combination=tmp_path / "other.json")


def test_a_loaded_store_is_saved_as_a_fit_of_its_own(folder, test_pictures, tmp_path):
    pictures, _ = test_pictures
    fungi = Fungi.load(folder, combination="decorrelated")
    fungi.save(tmp_path / "fungi")
    np.testing.assert_array_equal(Fungi.load(tmp_path / "fungi").transform(pictures), fungi.transform(pictures))
    with pytest.raises(RecipeError, match="holds no rows to fit a combination on"):
        Fungi.load(tmp_path / "fungi", combination="paper")


def test_loo_by_its_name_and_a_choice_without_labels_say_what_to_give(folder, tmp_path):
    with pytest.raises(RecipeError, match="combination=select"):
        Fungi.load(folder, combination="loo")
    extract(ListSource(noise_pictures(4)), tmp_path / "store", RECIPE)
    with pytest.raises(RecipeError, match="has no labels to choose by"):
        Fungi.load(tmp_path / "store", combination=select)


def test_a_network_of_ones_own_is_asked_for_by_its_parameter(tmp_path):
    recipe, pictures = replace(RECIPE, backbone=None), noise_pictures(6)
    fungi = Fungi(recipe, backbone=small_backbone())
    features = fungi.fit_transform(pictures)
    fungi.save(tmp_path / "fungi")
    extract(ListSource(pictures), tmp_path / "store", recipe, backbone=small_backbone())
    for folder in (tmp_path / "fungi", tmp_path / "store"):
        with pytest.raises(RecipeError, match=r"on a network of your own.*give it as backbone=Backbone\(module, ...\)"):
            Fungi.load(folder)
        again = Fungi.load(folder, backbone=small_backbone())
        np.testing.assert_allclose(again.transform(pictures), features, atol=1e-5)
    with pytest.raises(RecipeError, match=r"on a network of your own.*extract\(..., backbone="):
        extract(ListSource(pictures), tmp_path / "other", fit_from=tmp_path / "store")


def test_weights_that_moved_are_found_where_the_user_says(folder, test_pictures, tmp_path):
    pictures, _ = test_pictures
    features = Fungi.load(folder).transform(pictures)
    np.testing.assert_array_equal(Fungi.load(folder, backbone="tiny").transform(pictures), features)
    with pytest.raises(BackboneError):
        Fungi.load(folder, backbone=str(tmp_path / "nowhere"))


def test_nothing_is_saved_into_a_store_and_among_samples_it_is_said(folder, tmp_path):
    fungi = Fungi.load(folder)
    with pytest.raises(StoreError, match="is a store, which nothing else is written into; name another folder"):
        fungi.save(folder)
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    noise_pictures(1)[0].save(tmp_path / "photos" / "cats" / "a.png")
    with pytest.warns(SporeprintWarning, match=r"photos', which holds samples \(a.png, ...\)"):
        fungi.save(tmp_path / "photos")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text("{}")
    for _ in range(2):
        fungi.save(tmp_path / "run")
