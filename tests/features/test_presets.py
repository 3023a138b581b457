import json
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from sporeprint import DINO, KL, Combination, Fungi, Recipe, SimCLR
from sporeprint.cli.app import app
from sporeprint.errors import BackboneError, RecipeError
from sporeprint.features.presets import PRESETS, passes, preset
from sporeprint.objectives import settle
from sporeprint.objectives.view_sets import view_sets
from sporeprint.run.recipe_options import make_recipe

PROMISED = {"paper": 62, "balanced": 15, "fast": 5, "free": 1}  # embeddings, by tokens
MODALITIES = ("image", "text", "audio")


class Sides:
    """Image inputs with what a set of views needs to compute its cost: patches of 16 pixels in 224."""

    size = 224

    def side(self, fraction):
        return round(224 * fraction / 16) * 16


def cost(recipe, modality):
    return sum(view_set.cost(Sides()) for view_set in view_sets(settle(recipe.objectives, modality, recipe.views)))


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_costs_no_more_than_it_promises(name, modality):
    assert cost(Recipe.preset(name, modality=modality), modality) <= PROMISED[name]


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_cheaper_preset_never_costs_more(modality):
    costs = [cost(Recipe.preset(name, modality=modality), modality) for name in PRESETS]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == 1


def test_a_store_of_the_shipped_backbone_would_say_the_same_cost():
    for name in ("balanced", "fast", "free"):
        info = Fungi(Recipe.preset(name, "tiny")).block_info()
        passes = {block["views"]: block["passes"] for block in info.values()}
        assert sum(passes.values()) <= PROMISED[name]


def test_free_is_the_recipe_without_a_preset():
    assert Recipe.preset("free", "tiny", seed=3) == Recipe("tiny", seed=3)
    assert Recipe.preset("free", seed=3) == Recipe(seed=3)
    assert Recipe.preset("free", "tiny").fingerprint() == Recipe("tiny").fingerprint()


def test_the_paper_is_the_recipe_that_leaves_its_objectives_to_the_modality():
    assert Recipe.preset("paper", "tiny", seed=3) == Recipe("tiny", objectives=None, seed=3)
    assert Recipe.preset("paper", seed=3) == Recipe(objectives=None, seed=3)


@pytest.mark.parametrize(("name", "expected"), [("paper", 62), ("balanced", 1 + 2 + 4 * 0.25 + 9 * 0.25), ("free", 1)])
def test_passes_count_a_view_of_half_the_side_as_a_quarter(name, expected):
    assert passes(name, SimpleNamespace(modality="image", preprocess=Sides())) == expected


@pytest.mark.parametrize("modality", MODALITIES)
def test_free_has_no_views(modality):
    assert Recipe.preset("free", modality=modality).objectives == (KL(),)


@pytest.mark.parametrize(
    ("name", "modality", "views"),
    [
        ("balanced", "image", {DINO: 6, SimCLR: 9}),
        ("fast", "image", {DINO: 6}),
        ("balanced", "text", {SimCLR: 4}),
        ("fast", "text", {SimCLR: 2}),
        ("balanced", "audio", {SimCLR: 4}),
        ("fast", "audio", {SimCLR: 4}),
    ],
)
def test_objectives_and_views(name, modality, views):
    objectives = preset(name, modality)["objectives"]
    assert {type(objective): objective.views for objective in objectives} == {KL: 1, **views}


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("name", PRESETS)
def test_json_holds_what_the_preset_came_to(name, modality):
    recipe = Recipe.preset(name, modality=modality, layers=2)
    data = json.loads(json.dumps(recipe.to_json()))
    assert "preset" not in data
    assert data["layers"] == 2
    assert Recipe.from_json(data) == recipe


def test_an_override_wins_over_the_preset():
    own = Combination(("embedding", "kl"))
    assert Recipe.preset("free", "tiny", combination=own).combination == own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "quick", "backbone": "tiny"}, "'quick'; known: paper, balanced, fast, free"),
        ({"name": "fast"}, "give backbone="),
        ({"name": "fast", "modality": "video"}, "'video'; known: image, text, audio"),
        ({"name": "fast", "backbone": "tiny", "views": "native"}, "preset 'fast' sets views; leave views out"),
        ({"name": "free", "backbone": "tiny", "objectives": [KL()]}, "preset 'free' sets objectives"),
        ({"name": "free", "backbone": "tiny", "layer": 3}, "no field 'layer'"),
    ],
)
def test_unknown_presets_and_fields_that_a_preset_sets_are_refused(arguments, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.preset(**arguments)


def test_a_modality_that_the_backbone_does_not_take_is_refused():
    with pytest.raises(BackboneError, match="takes image, not text"):
        Recipe.preset("fast", "tiny", modality="text")


def test_the_command_line_takes_a_preset_with_other_options():
    recipe = make_recipe(None, True, preset="fast", backbone="tiny", seed=4)
    assert recipe == Recipe.preset("fast", "tiny", seed=4)


@pytest.mark.parametrize(
    "options", [["--objectives", "kl"], ["--views", "native"], ["--negatives", "8"]], ids=lambda words: words[0]
)
def test_the_command_line_refuses_options_that_a_preset_sets(options, tmp_path):
    command = ["extract", str(tmp_path), "--out", str(tmp_path / "o"), "--backbone", "tiny", "--preset", "fast"]
    result = CliRunner().invoke(app, [*command, *options])
    assert isinstance(result.exception, RecipeError)
    assert f"--preset fast decides on {options[0]}" in str(result.exception)


@pytest.mark.parametrize("other", ["--recipe", "--fit-from"])
def test_a_preset_together_with_another_recipe_is_refused(other, tmp_path):
    command = ["extract", str(tmp_path), "--out", str(tmp_path / "o"), "--preset", "fast", other, str(tmp_path / "r")]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, RecipeError)
    assert "--preset" in str(result.exception)


def test_an_image_through_the_fast_preset_has_the_three_families():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, 32, 3), np.uint8) for _ in range(3)]
    fungi = Fungi(Recipe.preset("fast", "tiny", layers=1))
    features = fungi.fit_transform(images)
    assert features.shape[0] == 3
    assert np.isfinite(features).all()
    assert {"embedding", "cls-6", "dino.views", "kl", "dino"} <= set(fungi.combiner.names)
