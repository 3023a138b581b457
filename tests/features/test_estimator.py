import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler

from small import noise_pictures, small_backbone
from sporeprint import DINO, KL, Combination, Dense, Fungi, Limits, Recipe, SimCLR
from sporeprint.errors import NotFitted, RecipeError, SporeprintError
from sporeprint.features import fungi as fungi_file
from sporeprint.objectives.views.image import Patches

KL_, SIMCLR_ = KL(latent=6), SimCLR(latent=5, augmentation=Patches(2), negatives=3)
RECIPE = Recipe(objectives=[KL_], dim=3, layers=1)


@pytest.fixture(scope="module")
def pictures():
    return noise_pictures(8)


@pytest.fixture(scope="module")
def backbone():
    return small_backbone()


@pytest.fixture
def loads(monkeypatch):
    """The recipes whose engines were made: each loads its backbone."""
    made, make_engine = [], fungi_file.make_engine
    monkeypatch.setattr(fungi_file, "make_engine", lambda *args: made.append(args[0]) or make_engine(*args))
    return made


# Parameters


def test_a_backbones_id_or_folder_stands_for_its_recipe(pictures):
    fungi = Fungi("tiny")
    assert fungi.recipe == "tiny"
    assert clone(fungi).recipe == "tiny"
    short, long = Fungi("tiny").fit(pictures[:3]), Fungi(Recipe(backbone="tiny")).fit(pictures[:3])
    np.testing.assert_array_equal(short.transform(pictures[:3]), long.transform(pictures[:3]))
    assert short.fitted.recipe == Recipe(backbone="tiny")
    assert Fungi(Path("some") / "folder").get_params()["recipe__backbone"] == str(Path("some") / "folder")


def test_without_a_recipe_the_default_one_is_taken(pictures, backbone):
    given, default = Fungi(Recipe(), backbone=backbone), Fungi(backbone=backbone)
    assert default.get_params()["recipe__layers"] == Recipe().layers
    assert list(default.fit(pictures).get_feature_names_out()) == list(given.fit(pictures).get_feature_names_out())


def test_fields_of_frozen_parameters_are_parameters(backbone):
    recipe = Recipe(size=7, combination=Combination(whiten=4), dense=Dense())
    params = Fungi(recipe, backbone=backbone, limits=Limits(max_seconds=3)).get_params()
    assert params["recipe"] is recipe
    assert params["recipe__size"] == 7
    assert params["recipe__combination__whiten"] == 4
    assert params["recipe__dense__size"] == Dense().size
    assert params["limits__max_seconds"] == 3
    assert not any("__" in name for name in Fungi(recipe).get_params(deep=False))
    assert Fungi().get_params()["limits__max_pixels"] == Limits().max_pixels
    assert not any(name.startswith("recipe__") for name in Fungi(recipe=5).get_params())


def test_a_field_that_is_set_makes_a_new_value():
    recipe = Recipe(backbone="tiny", combination=Combination(whiten=4))
    fungi = Fungi(recipe)
    assert fungi.set_params(recipe__size=64, recipe__combination__exponent=0.5, limits__max_pixels=9) is fungi
    assert fungi.recipe == Recipe(backbone="tiny", size=64, combination=Combination(whiten=4, exponent=0.5))
    assert fungi.limits == Limits(max_pixels=9)
    assert recipe.size is None
    assert Fungi("tiny").set_params(recipe__seed=3).recipe == Recipe(backbone="tiny", seed=3)
    assert Fungi().set_params(recipe__size=3, recipe=Recipe(seed=5)).recipe == Recipe(seed=5, size=3)
    both = Fungi().set_params(recipe__combination=Combination(whiten=4), recipe__combination__size=2)
    assert both.recipe.combination == Combination(whiten=4, size=2)


@pytest.mark.parametrize("name", ["recipe__sise", "recipe__size__x", "sise", "sise__x", "recipe__backbone__x"])
def test_a_name_that_is_no_parameter_is_refused_in_scikit_learns_words(name):
    fungi = Fungi("tiny")
    with pytest.raises(ValueError, match=r"(?s)Invalid parameter '.*' for .*\. Valid parameters are: \["):
        fungi.set_params(**{name: 3})
    assert fungi.recipe == "tiny"


def test_a_value_that_the_recipe_refuses_says_why_and_changes_nothing():
    fungi = Fungi("tiny")
    with pytest.raises(RecipeError, match="size=-1"):
        fungi.set_params(recipe__size=-1)
    assert fungi.recipe == "tiny"


def test_size_and_combination_change_without_loading_the_backbone_again(pictures, backbone, loads):
    fungi = Fungi(Recipe(objectives=[KL_, SIMCLR_], dim=3, layers=1), backbone=backbone).fit(pictures)
    network, negatives = fungi.network, fungi.negatives["simclr"]
    fungi.set_params(recipe__size=4)
    with pytest.raises(NotFitted):
        fungi.transform(pictures)
    assert fungi.network is network
    assert fungi.negatives["simclr"] is negatives
    assert fungi.fit(pictures).transform(pictures).shape == (8, 4)
    fungi.set_params(recipe__combination=Combination(("kl",)), recipe__size=None)
    assert fungi.fit_transform(pictures).shape == (8, 3)
    assert len(loads) == 1
    other = Fungi(fungi.recipe, backbone=backbone).fit_transform(pictures)
    np.testing.assert_array_equal(fungi.transform(pictures), other)
    fungi.set_params(recipe__dim=2)
    assert fungi.fit_transform(pictures).shape == (8, 2)
    assert len(loads) == 3


def test_patches_follow_a_change_of_dense(pictures, backbone, loads):
    fungi = Fungi(Recipe(dense=Dense(objectives=(), size=(32, 32))), backbone=backbone).fit_dense(pictures)
    assert fungi.fitted_dense
    fungi.set_params(recipe__dense__size=(32, 48))
    assert not fungi.fitted_dense
    assert fungi.fit_dense(pictures).dense(pictures[:1]).shape[1:3] == (4, 6)
    assert len(loads) == 1


# Names of features


def test_features_are_named_by_block_and_number(pictures, backbone):
    fungi = Fungi(RECIPE, backbone=backbone).fit(pictures)
    embedding = [f"embedding_{number}" for number in range(16)]
    assert fungi.get_feature_names_out().tolist() == [*embedding, "kl_0", "kl_1", "kl_2"]
    assert fungi.get_feature_names_out().dtype == object
    whitened = Recipe(objectives=[KL_], dim=3, layers=0, combination=Combination(("kl", "embedding"), whiten=2))
    names = Fungi(whitened, backbone=backbone).fit(pictures).get_feature_names_out(["a column"])
    assert names.tolist() == ["kl_0", "kl_1", "embedding_0", "embedding_1"]


def test_features_that_pca_mixes_are_numbered(pictures, backbone):
    fungi = Fungi(Recipe(objectives=[KL_], layers=0, size=3), backbone=backbone).fit(pictures)
    assert fungi.get_feature_names_out().tolist() == ["fungi0", "fungi1", "fungi2"]
    pipeline = make_pipeline(fungi, StandardScaler()).fit(pictures)
    assert pipeline.get_feature_names_out().tolist() == ["fungi0", "fungi1", "fungi2"]


def test_before_fit_there_are_no_names(backbone):
    with pytest.raises(NotFitted, match="get_feature_names_out before fit"):
        Fungi(RECIPE, backbone=backbone).get_feature_names_out()


def test_not_fitted_is_scikit_learns_too():
    assert issubclass(NotFitted, NotFittedError)
    assert issubclass(NotFitted, SporeprintError)
    assert pickle.loads(pickle.dumps(NotFitted("call fit"))).args == ("call fit",)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_features_come_as_a_data_frame_where_that_is_set(pictures, backbone, library):
    frames = pytest.importorskip(library)
    recipe = Recipe(objectives=[], layers=0, size=2)
    fungi = Fungi(recipe, backbone=backbone).set_output(transform=library)
    for features in (fungi.fit_transform(pictures), fungi.transform(pictures)):
        assert isinstance(features, frames.DataFrame)
        assert list(features.columns) == ["fungi0", "fungi1"]
        np.testing.assert_array_equal(features.to_numpy(), Fungi(recipe, backbone=backbone).fit_transform(pictures))


def test_a_column_of_a_data_frame_becomes_features_next_to_other_columns(pictures, backbone):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"picture": pictures, "year": range(8)}, index=[f"row {number}" for number in range(8)])
    fungi = Fungi(Recipe(objectives=[], layers=0, size=2), backbone=backbone)
    columns = make_column_transformer((fungi, "picture"), ("passthrough", ["year"])).set_output(transform="pandas")
    table = columns.fit_transform(frame)
    assert list(table.columns) == ["fungi__fungi0", "fungi__fungi1", "remainder__year"] or list(table.columns) == [
        "fungi__fungi0",
        "fungi__fungi1",
        "passthrough__year",
    ]
    assert list(table.index) == list(frame.index)
    np.testing.assert_allclose(table.iloc[:, :2], fungi.fit_transform(pictures), atol=1e-6)


# In pipelines and searches


def test_a_search_over_the_recipes_fields_tries_each(pictures, backbone):
    search = GridSearchCV(
        make_pipeline(Fungi(RECIPE, backbone=backbone), LogisticRegression()),
        {"fungi__recipe__size": [1, 2, None], "fungi__recipe__layers": [0, 1]},
        cv=2,
        error_score="raise",
    ).fit(pictures, [0, 1] * 4)
    assert len(search.cv_results_["params"]) == 6
    best = search.best_params_
    fungi = search.best_estimator_[0]
    assert (fungi.recipe.size, fungi.recipe.layers) == (best["fungi__recipe__size"], best["fungi__recipe__layers"])
    assert fungi.recipe.objectives == RECIPE.objectives
    assert search.predict(pictures).shape == (8,)


def test_features_of_two_recipes_are_joined(pictures, backbone):
    one, other = Fungi(RECIPE, backbone=backbone), Fungi(Recipe(layers=0, size=2), backbone=backbone)
    union = FeatureUnion([("a", one), ("b", other)]).fit(pictures)
    expected = np.hstack([one.fit_transform(pictures), other.fit_transform(pictures)])
    np.testing.assert_allclose(union.transform(pictures), expected, atol=1e-5)
    assert union.get_feature_names_out()[[0, -1]].tolist() == ["a__embedding_0", "b__fungi1"]


def test_a_pipeline_is_copied_into_another_process_fitted_or_to_be_fitted(pictures, backbone):
    labels = [0, 1] * 4
    pipeline = make_pipeline(Fungi(RECIPE, backbone=backbone), LogisticRegression()).fit(pictures, labels)
    expected = pipeline.predict_proba(pictures)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        np.testing.assert_array_equal(other.submit(pipeline.predict_proba, pictures).result(), expected)
        fitted = other.submit(clone(pipeline).fit, pictures, labels).result()
    np.testing.assert_allclose(fitted.predict_proba(pictures), expected, atol=1e-6)


def test_ids_are_routed_where_they_are_asked_for(pictures, backbone):
    fungi = Fungi(Recipe(objectives=[SIMCLR_], layers=0), backbone=backbone)
    ids = [f"picture {number}" for number in range(8)]
    expected = clone(fungi).fit_transform(pictures, ids=ids)
    assert not np.array_equal(expected, clone(fungi).fit_transform(pictures))
    with sklearn.config_context(enable_metadata_routing=True):
        routed = clone(fungi).set_fit_request(ids=True).set_transform_request(ids=True)
        pipeline = make_pipeline(routed, StandardScaler()).fit(pictures, ids=ids)
        np.testing.assert_array_equal(pipeline[0].transform(pictures, ids=ids), expected)


def test_fit_leaves_the_backbone_and_its_own_parameters_as_they_were(pictures):
    backbone = small_backbone()
    fungi = Fungi(RECIPE, backbone=backbone)
    before, params = joblib.hash(backbone), fungi.get_params()
    fungi.fit(pictures)
    assert joblib.hash(backbone) == before
    assert fungi.get_params() == params


# Display


class Watched(Fungi):
    """A Fungi that nothing shown may ask for its network."""

    @property
    def engine(self):
        raise AssertionError("the backbone was asked for")


def shown(estimator):
    text = repr(estimator)
    html = estimator._repr_html_()
    assert html == estimator._repr_mimebundle_()["text/html"] or "sk-top-container" in html
    return text, html


@pytest.mark.parametrize("fungi", [Fungi(), Fungi("tiny"), Fungi(RECIPE), Fungi(5), Fungi("tiny", limits="none")])
def test_showing_an_unfitted_fungi_loads_nothing(fungi):
    watched = Watched(**fungi.get_params(deep=False))
    text, _ = shown(watched)
    assert text.startswith("Watched(")
    shown(make_pipeline(watched, LogisticRegression()))
    assert "transform" in dir(watched)


def test_a_fitted_fungi_is_shown_by_what_was_set(pictures):
    fungi = Fungi(Recipe(backbone="tiny", objectives=[KL_, DINO()], size=4)).fit(pictures)
    recipe = "Recipe(backbone='tiny', objectives=(KL(latent=6), DINO()), size=4)"
    text, html = shown(fungi)
    assert text == f"Fungi(recipe={recipe})"
    assert "KL(latent=6)" in html
    assert recipe in " ".join(shown(make_pipeline(fungi, LogisticRegression()))[0].split())


def test_showing_a_fitted_fungi_reads_no_property(pictures, backbone, monkeypatch):
    fungi = Fungi(RECIPE, backbone=backbone).fit(pictures)
    for name in ("engine", "patches", "network", "fitted", "seconds"):
        monkeypatch.setattr(Fungi, name, property(lambda self, name=name: pytest.fail(f"{name} was read")))
    text, _ = shown(fungi)
    assert "Backbone(TinyViT" in text
    assert "fit_dense" in dir(fungi)


# The values that users see


def test_a_recipe_is_shown_by_what_differs_from_the_default():
    assert repr(Recipe()) == "Recipe()"
    recipe = Recipe(backbone="tiny", objectives=[KL(), SimCLR(negatives=4)], combination=Combination(whiten="auto"))
    expected = "Recipe(backbone='tiny', objectives=(KL(), SimCLR(negatives=4)), combination=Combination(whiten='auto'))"
    assert repr(recipe) == expected
    assert eval(repr(recipe)) == recipe


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        (Recipe("tiny"), "Recipe(backbone='tiny')"),
        (Recipe(objectives=[KL()]), "Recipe(objectives=(KL(),))"),
        (Recipe(combination="decorrelated"), "Recipe(combination='decorrelated')"),
        (Recipe(objectives=None), "Recipe(objectives=None)"),
        (Recipe(objectives=(), layers=4), "Recipe(objectives=(), layers=4)"),
        (Recipe(combination="paper"), "Recipe(objectives=(KL(),))"),
    ],
)
def test_a_recipe_is_shown_alike_once_saved_copied_or_evaluated(recipe, text):
    assert repr(recipe) == text
    for copied in (Recipe.from_json(recipe.to_json()), copy.deepcopy(recipe), pickle.loads(pickle.dumps(recipe))):
        assert (repr(copied), copied) == (text, recipe)
    assert eval(text) == recipe


@pytest.mark.parametrize("copied", [clone, copy.deepcopy, lambda fungi: pickle.loads(pickle.dumps(fungi))])
def test_a_copied_default_recipe_still_decides_its_combination(copied):
    fungi = copied(Fungi(Recipe("tiny")))
    assert fungi.set_params(recipe__combination=None).recipe == Recipe("tiny")
    with pytest.raises(RecipeError, match="the default objective makes no views"):
        fungi.set_params(recipe__views="native")


def test_a_backbone_is_shown_by_what_it_takes_and_gives():
    assert repr(small_backbone()) == "Backbone(TinyViT, image, 16 numbers, reads blocks.1.attn.proj)"


def test_a_fitted_combination_is_shown_by_its_parts(pictures, backbone):
    fungi = Fungi(Recipe(objectives=[KL_], dim=3, layers=0, size=2), backbone=backbone).fit(pictures)
    assert repr(fungi.combiner) == "Combiner(embedding 16, kl 3, size 2; fitted on 8 rows)"
