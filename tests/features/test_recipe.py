import builtins
import dataclasses
import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from sporeprint import DINO, KL, Combination, Copies, Dense, Recipe, SimCLR, TokenKL
from sporeprint.errors import RecipeError
from sporeprint.objectives import Objective
from sporeprint.objectives.views.clip import NoiseAndRoll
from sporeprint.objectives.views.image import Crops, Patches
from sporeprint.objectives.views.text import Deletions
from sporeprint.values import canonical, from_json, kind, to_json

FULL = Recipe(
    backbone="owner/name",
    objectives=[
        KL(name="kl-15", temperature=15.0, latent=32),
        DINO(augmentation=Crops(1, 4, (0.3, 0.9), (0.1, 0.2), (0.5, 2.0)), student_temperature=0.2),
        SimCLR(augmentation=Patches(3), negatives=64, temper_negatives=False),
    ],
    targets=["blocks.10.mlp.fc2", "blocks.11.attn.proj"],
    pooling="mean",
    projection="sparse",
    dim=128,
    layers=2,
    layer_kinds=("cls", "max"),
    views="native",
    size=256,
    combination=Combination(("embedding", "kl-15"), whiten=20, size=30),
    dtype="bfloat16",
    seed=7,
    modality="image",
    dense=Dense(objectives=(TokenKL(),), layers=(6, -1), copies=Copies(2, True, (1.0, 1.5)), size=(240, 320)),
)


def test_every_field_comes_back_from_json():
    defaults = Recipe()
    for field in dataclasses.fields(Recipe):
        assert getattr(FULL, field.name) != getattr(defaults, field.name), f"{field.name} is not exercised"
    for recipe in (FULL, defaults, Recipe(objectives=[])):
        back = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
        assert back == recipe
        assert back.fingerprint() == recipe.fingerprint()


def test_json_is_plain_and_names_its_kinds():
    data = Recipe(objectives=[KL()]).to_json()
    assert data["objectives"] == [
        {"kind": "kl", "name": "kl", "latent": 768, "augmentation": {"kind": "whole"}, "negatives": 0, "temperature": 1}
    ]
    assert data["combination"] == "paper"


def test_objectives_that_are_none_are_left_to_the_modality_and_an_empty_list_has_none():
    assert Recipe(objectives=None).objectives is None
    named = Recipe(objectives=[KL(), DINO(), SimCLR()])
    assert Recipe(objectives=None).fingerprint() != named.fingerprint()
    assert Recipe(objectives=[]).objectives == ()


def test_a_recipe_without_objectives_takes_kl_and_joins_it_with_the_layers():
    recipe = Recipe("tiny")
    assert recipe.objectives == (KL(),)
    families = ("embedding", "layers", "views", "gradients")
    assert recipe.combination == Combination(families, whiten="auto", exponent=0.75)


@pytest.mark.parametrize("objectives", [None, [], [KL()], [KL(), DINO(), SimCLR()]])
def test_objectives_that_are_given_are_joined_as_the_paper_does(objectives):
    assert Recipe(objectives=objectives).combination == "paper"
    own = Combination(("embedding", "layers"))
    assert Recipe(objectives=objectives, combination=own).combination == own


def test_a_combination_without_objectives_joins_what_the_default_computes():
    assert Recipe(combination="paper") == Recipe(objectives=[KL()])


def test_another_field_of_the_default_keeps_how_it_is_joined():
    assert dataclasses.replace(Recipe("tiny"), size=5) == Recipe("tiny", size=5)
    assert dataclasses.replace(Recipe("tiny", objectives=[KL()]), seed=2) == Recipe("tiny", objectives=[KL()], seed=2)


def test_a_recipe_file_that_leaves_objectives_out_is_the_default_and_one_that_says_null_is_the_papers():
    assert Recipe.from_json({"backbone": "tiny", "layers": 2}) == Recipe("tiny", layers=2)
    assert Recipe.from_json({"backbone": "tiny", "objectives": None}) == Recipe.preset("paper", "tiny")
    assert Recipe.from_json({"objectives": [{"kind": "kl"}]}) == Recipe(objectives=[KL()])


@pytest.mark.parametrize(
    ("objective", "left_open"),
    [
        (SimCLR(), {"latent", "augmentation", "negatives", "negative_views"}),
        (SimCLR(latent=5, negatives=0), {"augmentation", "negative_views"}),
        (SimCLR(augmentation=Deletions(3), negative_views=1), {"latent", "negatives"}),
        (SimCLR(augmentation=NoiseAndRoll(frames=2)), {"latent", "negatives", "negative_views"}),
        (DINO(), {"augmentation"}),
    ],
)
def test_what_the_modality_decides_stays_open_in_json(objective, left_open):
    recipe = Recipe(objectives=[objective])
    data = json.loads(json.dumps(recipe.to_json()))
    assert {name for name, value in data["objectives"][0].items() if value is None} == left_open
    back = Recipe.from_json(data)
    assert back == recipe
    assert back.fingerprint() == recipe.fingerprint()


@pytest.mark.parametrize("modality", ["auto", "image", "text", "audio"])
def test_a_modality_comes_back_from_json(modality):
    recipe = Recipe(modality=modality)
    assert recipe.to_json()["modality"] == modality
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))).modality == modality


def test_lists_become_tuples_so_that_recipes_are_values():
    recipe = Recipe(objectives=[KL()], targets=["a", "b"])
    assert recipe == Recipe(objectives=(KL(),), targets=("a", "b"))
    assert hash(recipe) == hash(Recipe(objectives=(KL(),), targets=("a", "b")))
    assert Recipe(targets="a").targets == ("a",)


CHANGES = {
    "backbone": "other",
    "objectives": (KL(), SimCLR()),
    "targets": ("x",),
    "pooling": "cls",
    "projection": "sparse",
    "dim": 3,
    "layers": 0,
    "layer_kinds": ("mean", "max"),
    "views": "native",
    "size": 5,
    "combination": Combination(),
    "dtype": "float32",
    "seed": 1,
    "modality": "text",
    "dense": Dense(),
}


def test_fingerprint_changes_with_every_field():
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Recipe)}
    prints = {Recipe().fingerprint()}
    for name, value in CHANGES.items():
        prints.add(Recipe.from_json({**Recipe().to_json(), name: to_json(value)}).fingerprint())
    assert len(prints) == len(CHANGES) + 1


@pytest.mark.parametrize(
    "objective",
    [
        KL(temperature=2.0),
        KL(latent=5),
        KL(augmentation=Patches(1)),
        DINO(teacher_temperature=0.2),
        DINO(augmentation=Crops(local_crops=2)),
        SimCLR(negatives=3),
        SimCLR(temper_negatives=False),
        SimCLR(temperature=0.1),
        SimCLR(augmentation=Patches(2)),
    ],
)
def test_fingerprint_changes_with_an_objectives_constants(objective):
    plain = type(objective)()
    assert Recipe(objectives=[objective]).fingerprint() != Recipe(objectives=[plain]).fingerprint()


def test_equal_recipes_have_equal_fingerprints_whether_a_number_is_written_1_or_1_0():
    whole, real = Recipe(objectives=[KL(temperature=1)]), Recipe(objectives=[KL(temperature=1.0)])
    assert whole == real
    assert whole.fingerprint() == real.fingerprint()
    wide, same = Crops(global_area=(1, 1)), Crops(global_area=(1.0, 1.0))
    assert to_json(wide) == to_json(same)
    assert canonical(to_json(wide)) == canonical(to_json(same))


def test_what_older_stores_say_of_views_is_said_in_the_same_words_today():
    old = {"kind": "patches", "grid": 7}
    assert to_json(Patches()) == old
    assert from_json(old) == Patches()
    assert set(to_json(Crops())) == {"kind", "global_crops", "local_crops", "global_area", "local_area", "aspect"}
    assert to_json(Patches(side=0.5)) == {**old, "side": 0.5}
    assert from_json(to_json(Crops(local_side=0.5))) == Crops(local_side=0.5)
    without = {key: value for key, value in Recipe().to_json().items() if key != "views"}
    assert Recipe.from_json(without) == Recipe()


def test_fingerprint_is_sixteen_hex_digits_and_the_same_in_another_process():
    code = (
        "import sys, json; from sporeprint import Recipe; print(Recipe.from_json(json.load(sys.stdin)).fingerprint())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(FULL.to_json()),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},  # here it is another one
    )
    assert other.stdout.strip() == FULL.fingerprint()
    assert len(FULL.fingerprint()) == 16
    int(FULL.fingerprint(), 16)


@pytest.mark.parametrize("name", ["size", "combination", "dense"])
def test_what_is_decided_later_is_in_the_json_and_not_among_what_decides_the_blocks(name):
    recipe = Recipe(**{name: CHANGES[name]})
    assert name in recipe.to_json()
    assert name not in recipe.blocks_json()
    assert recipe.blocks_json() == Recipe().blocks_json()


def test_size_and_combination_decide_no_block():
    assert Recipe(size=5, combination=Combination(whiten=3)).blocks_json() == Recipe().blocks_json()
    plain = Recipe(objectives=None)
    for name in set(CHANGES) - {"size", "combination", "dense"}:
        assert dataclasses.replace(plain, **{name: CHANGES[name]}).blocks_json() != plain.blocks_json()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"pooling": "max"}, "pooling='max'; expected one of: auto, cls, mean, last"),
        ({"modality": "video"}, "modality='video'; expected one of: auto, image, text, audio"),
        ({"modality": None}, "modality=None; expected one of"),
        ({"objectives": [KL(latent=None)]}, "latent=None .* expected an integer of at least 1"),
        ({"objectives": [SimCLR(latent=0)]}, "latent=0 .* expected an integer of at least 1"),
        ({"objectives": [KL(negatives=None)]}, "negatives=None .* expected an integer of at least 0"),
        ({"dtype": "float16"}, "expected one of: auto, float32, bfloat16"),
        (
            {"views": "native"},
            r"views='native', but the default objective makes no views; .* objectives=\[KL\(\), DINO",
        ),
        ({"views": "small"}, "views='small'; expected one of: paper, native"),
        ({"dim": 0}, "dim=0; expected an integer of at least 1"),
        ({"dim": 1.5}, "expected an integer"),
        ({"size": -3}, "size=-3"),
        ({"size": True}, "size=True"),
        ({"layers": -1}, "at least 0"),
        ({"layers": None}, "layers=None"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": "0"}, "seed='0'"),
        ({"targets": []}, "targets is empty"),
        ({"targets": [3]}, "paths"),
        ({"backbone": 3}, "names its backbone"),
        ({"objectives": [KL]}, r"give an instance such as KL\(\)"),
        ({"objectives": ["kl"]}, "no `loss`"),
        ({"objectives": KL()}, "list of objectives"),
        ({"objectives": [KL(), KL(temperature=2)]}, "two objectives are named 'kl'"),
        ({"combination": "best"}, "expected 'paper', 'decorrelated', or a Combination"),
        ({"combination": 3}, "Combination"),
        ({"projection": "gaussian"}, "expected one of: rademacher"),
        ({"projection": ["sparse"]}, "expected one of: rademacher"),
        ({"projection": "kronecker"}, r"projection 'kronecker' was removed: .*docs/projections.md\); use tensorsketch"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_at_once(fields, complaint):
    with pytest.raises(RecipeError, match=complaint):
        Recipe(**fields)


@pytest.mark.parametrize(
    "name",
    [
        *("", "embedding", "whole", "cls-3", "patches-12", "tokens-3", "last-3", "attention-12"),
        *("a@b", "dino.views", "a b", "1kl", "a\n", "ä", "a/b"),
    ],
)
def test_names_that_other_blocks_have_or_that_cannot_name_one_are_refused(name):
    with pytest.raises(RecipeError, match="objective name"):
        Recipe(objectives=[KL(name=name)])


def test_the_names_that_are_taken_are_said():
    with pytest.raises(
        RecipeError, match=r"another block or family \(embedding, .*views.*, cls-N, last-N, .*attention-N"
    ):
        Recipe(objectives=[KL(name="embedding")])


@pytest.mark.parametrize("name", ["kl-15", "KL_2", "cls", "patches-x", "embedding2", "tokens", "last-", "last-3b"])
def test_other_names_are_free(name):
    assert Recipe(objectives=[KL(name=name)]).objectives[0].name == name


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"backbon": "tiny"}, "no field 'backbon'; it has: backbone, combination"),
        ({"objectives": [{"kind": "kl", "temprature": 1}]}, "KL has no field 'temprature'"),
        ({"objectives": [{"kind": "os.system", "command": "true"}]}, r"unknown kind 'os\.system'; known: .*kl"),
        ({"objectives": [{"name": "kl"}]}, "unknown kind None"),
        ({"objectives": [{"kind": ["kl"]}]}, "unknown kind"),
        ({"objectives": [{"kind": "crops"}]}, "no `loss`"),
        ({"objectives": [{"kind": "kl", "temperature": "hot"}]}, "KL"),
        ({"objectives": [{"kind": "kl", "temperature": None}]}, "KL"),
        ({"objectives": [{"kind": "simclr", "augmentation": 3}]}, "SimCLR"),
        ({"objectives": [{"kind": "dino", "augmentation": {"kind": "crops", "global_area": 3}}]}, "Crops"),
        ({"objectives": 3}, "objectives"),
        ({"objectives": {"kind": "kl"}}, "list of objectives"),
        ({"combination": {"kind": "combination", "size": "big"}}, "Combination"),
    ],
)
def test_json_that_is_no_recipe_is_refused_with_a_reason(data, complaint):
    with pytest.raises(RecipeError, match=complaint):
        Recipe.from_json(data)


def test_a_strange_kind_imports_nothing(monkeypatch):
    Recipe.from_json(Recipe().to_json())
    imported = []
    for module, name in ((importlib, "import_module"), (builtins, "__import__")):
        real = getattr(module, name)

        def watched(wanted, *args, real=real, **kwargs):
            imported.append(wanted)
            return real(wanted, *args, **kwargs)

        monkeypatch.setattr(module, name, watched)
    for strange in ("antigravity", "os:system", "sporeprint.cli", "../evil", "this"):
        with pytest.raises(RecipeError, match="unknown kind"):
            from_json({"kind": strange})
    monkeypatch.undo()
    assert not {"antigravity", "this", "os:system", "sporeprint.cli", "../evil"} & set(imported)
    assert "antigravity" not in sys.modules


@kind("test-entropy")
@dataclass(frozen=True)
class Entropy(Objective):
    name: str = "entropy"
    latent: int = 10
    weight: float = 2.0

    def loss(self, latents):
        return self.weight * latents.softmax(-1).square().sum(dim=(1, 2))


def test_a_third_partys_objective_comes_back_from_json():
    recipe = Recipe(objectives=[Entropy(weight=3.5), KL()])
    back = Recipe.from_json(json.loads(json.dumps(recipe.to_json())))
    assert back == recipe
    assert type(back.objectives[0]) is Entropy


@dataclass(frozen=True)
class Unregistered(KL):
    pass


def test_an_objective_without_a_kind_of_its_own_is_not_written_as_another():
    recipe = Recipe(objectives=[Unregistered()])
    with pytest.raises(RecipeError, match=r"Unregistered.*sporeprint\.values\.kind"):
        recipe.to_json()
    with pytest.raises(RecipeError, match="Unregistered"):
        recipe.fingerprint()


def test_a_kind_cannot_be_taken_over():
    with pytest.raises(RecipeError, match="'kl' is taken"):
        kind("kl")(Unregistered)
    assert type(from_json({"kind": "kl"})) is KL


def test_a_class_defined_anew_keeps_its_kind():
    again = dataclasses.make_dataclass("Entropy", [], bases=(Objective,), frozen=True)
    again.__module__, again.__qualname__ = Entropy.__module__, Entropy.__qualname__
    assert kind("test-entropy")(again) is again
    kind("test-entropy")(Entropy)


def test_an_entry_point_is_loaded_for_its_own_kind_only(monkeypatch):
    @dataclass(frozen=True)
    class Plugged(KL):
        pass

    class Point:
        name = "test-plugged"

        def load(self):
            kind(self.name)(Plugged)

    class Other:
        name = "other"

        def load(self):
            raise AssertionError("loaded for nothing")

    monkeypatch.setattr("sporeprint.values.metadata.entry_points", lambda group: [Other(), Point()])
    assert type(from_json({"kind": "test-plugged"})) is Plugged


def test_values_that_json_cannot_hold_are_refused():
    with pytest.raises(RecipeError, match="cannot be written as JSON"):
        to_json(object())


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_json_cannot_hold_are_refused(value):
    with pytest.raises(RecipeError, match="cannot be written as JSON"):
        to_json(Crops(local_area=(0.5, abs(value))) if value == value else value)


@pytest.mark.parametrize("value", ["kl", KL()])
def test_objectives_that_are_no_list_are_answered_with_one(value):
    with pytest.raises(RecipeError, match=r"expected a list of objectives, such as \[KL\(\)\]$"):
        Recipe("tiny", objectives=value)
