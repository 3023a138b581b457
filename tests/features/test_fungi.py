import hashlib
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted
from torch import nn

from small import PREPROCESS, noise_pictures, small_backbone, small_module
from sporeprint import DINO, KL, Combination, Fungi, Recipe, SimCLR, select
from sporeprint.backbones.backbone import Backbone
from sporeprint.data.images import content_digest
from sporeprint.errors import (
    DamagedStore,
    NotFitted,
    RecipeError,
    SampleError,
    SporeprintError,
    SporeprintWarning,
    StoreMismatch,
    TooManyFailures,
)
from sporeprint.gradients.projections.projection import Dense
from sporeprint.objectives.views.image import Crops, Patches
from sporeprint.values import canonical

KL_, DINO_ = KL(latent=24), DINO(latent=20, augmentation=Crops(2, 2))
SIMCLR_ = SimCLR(latent=12, augmentation=Patches(2), negatives=4)
RECIPE = Recipe(objectives=[KL_, DINO_, SIMCLR_], layers=2)


@pytest.fixture(scope="module")
def pictures():
    return noise_pictures(10)


@pytest.fixture(scope="module")
def backbone():
    return small_backbone()


def relative_error(one, other):
    return (np.linalg.norm(one - other, axis=1) / np.linalg.norm(other, axis=1)).max()


# Features


def test_features_are_the_combination_of_the_blocks_in_the_order_of_the_rows(pictures, backbone):
    fungi = Fungi(RECIPE, backbone=backbone)
    features = fungi.fit_transform(pictures)
    assert features.dtype == np.float32
    assert features.shape == (10, 4 * 16)
    blocks = fungi.blocks(pictures)
    joined = np.concatenate([blocks[name] for name in ("embedding", "kl", "dino", "simclr")], axis=1)
    np.testing.assert_allclose(features, joined, atol=1e-6)
    np.testing.assert_allclose(fungi.transform(pictures[::-1]), features[::-1], atol=1e-5)


def test_fit_transform_and_fit_then_transform_agree(pictures, backbone):
    recipe = replace(RECIPE, size=5)
    at_once = Fungi(recipe, backbone=backbone).fit_transform(pictures)
    later = Fungi(recipe, backbone=backbone).fit(pictures).transform(pictures)
    assert at_once.shape == (10, 5)
    np.testing.assert_allclose(at_once, later, atol=1e-5)


def test_a_recipes_combination_and_size_shape_the_features(pictures, backbone):
    recipe = replace(RECIPE, combination=Combination(("kl", "cls-1"), whiten=3), size=4)
    fungi = Fungi(recipe, backbone=backbone)
    assert fungi.fit_transform(pictures).shape == (10, 4)
    assert fungi.combiner.names == ("kl", "cls-1")


def test_other_features_of_the_same_blocks_need_no_pass(pictures, backbone, tmp_path, monkeypatch):
    fungi = Fungi(RECIPE, backbone=backbone)
    blocks = fungi.fit_blocks(pictures)
    negatives = fungi.negatives["simclr"]
    other = Combination(("embedding", "layers", "kl"), "auto", exponent=0.5, weights=(2.0, 1.0, 1.0))
    with monkeypatch.context() as without:
        without.delattr(type(fungi.engine), "blocks")
        assert fungi.recombine(blocks, other, size=5) is fungi
    expected = replace(other, size=5).fit(blocks).transform(blocks)
    np.testing.assert_allclose(fungi.transform(pictures), expected, atol=1e-5)
    assert fungi.negatives["simclr"] is negatives
    assert fungi.recipe == replace(RECIPE, combination=other, size=5)
    fungi.save(tmp_path / "fungi")
    loaded = Fungi.load(tmp_path / "fungi", backbone=backbone)
    np.testing.assert_allclose(loaded.transform(pictures), expected, atol=1e-5)
    assert fungi.recombine(blocks, "paper").transform(pictures).shape == (10, 4 * 16)
    with pytest.raises(RecipeError, match="expected 'paper', 'decorrelated', or a Combination"):
        fungi.recombine(blocks, "papers")
    assert fungi.transform(pictures).shape == (10, 4 * 16)


def test_recombine_takes_what_select_returns(pictures, backbone):
    fungi = Fungi(RECIPE, backbone=backbone)
    blocks = fungi.fit_blocks(pictures)
    selection = select(blocks, [0, 1] * 5)
    fungi.recombine(blocks, selection)
    assert fungi.recipe.combination == selection.combination
    expected = selection.combination.fit(blocks).transform(blocks)
    np.testing.assert_allclose(fungi.transform(pictures), expected, atol=1e-5)


def test_labels_are_never_looked_at(pictures, backbone):
    class Untouchable:
        def __getattribute__(self, name):
            raise AssertionError("a label was looked at")

    labels = Untouchable()
    features = Fungi(RECIPE, backbone=backbone).fit_transform(pictures, labels)
    np.testing.assert_array_equal(features, Fungi(RECIPE, backbone=backbone).fit_transform(pictures))


def test_samples_may_be_paths_bytes_and_arrays(pictures, backbone, tmp_path):
    fungi = Fungi(Recipe(objectives=[KL_, DINO_]), backbone=backbone)
    image = pictures[0]
    image.save(tmp_path / "a.png")
    given = [image, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), np.asarray(image)]
    for values in fungi.blocks(given).values():
        np.testing.assert_allclose(values, np.repeat(values[:1], 5, axis=0), atol=1e-6)


def test_width_of_gradient_blocks_is_dim_or_the_embeddings(pictures, backbone):
    for dim, width in ((None, 16), (7, 7), (300, 300)):
        blocks = Fungi(Recipe(objectives=[KL_], dim=dim), backbone=backbone).blocks(pictures[:2])
        assert blocks["kl"].shape == (2, width)
        assert blocks["embedding"].shape == (2, 16)


def test_no_objectives_leave_embedding_and_layers(pictures, backbone):
    fungi = Fungi(Recipe(objectives=[], layers=1), backbone=backbone)
    assert list(fungi.blocks(pictures[:2])) == ["embedding", "cls-2", "patches-2"]
    assert fungi.fit_transform(pictures).shape == (10, 16)


# Not fitted, misused


def test_transform_before_fit_says_so(pictures, backbone):
    fungi = Fungi(RECIPE, backbone=backbone)
    with pytest.raises(NotFitted, match="call fit"):
        fungi.transform(pictures)
    with pytest.raises(NotFittedError):
        check_is_fitted(fungi)
    check_is_fitted(fungi.fit(pictures))


def test_blocks_need_negatives_only_where_an_objective_does(pictures, backbone):
    with pytest.raises(NotFitted, match=r"'simclr' needs negatives.*\[M, 12\]"):
        Fungi(RECIPE, backbone=backbone).blocks(pictures)
    for objectives in ([KL_, DINO_], [replace(SIMCLR_, negatives=0)]):
        assert len(Fungi(Recipe(objectives=objectives), backbone=backbone).blocks(pictures)["embedding"]) == 10


@pytest.mark.parametrize(
    ("samples", "ids", "complaint"),
    [
        ("one.png", None, "give \\[sample\\]"),
        (b"bytes", None, "list of samples"),
        (5, None, "list of samples"),
        ([], None, "samples is empty"),
        ([None, None], ["a"], "1 ids for 2 samples"),
    ],
)
def test_samples_that_are_no_list_are_refused(backbone, samples, ids, complaint):
    with pytest.raises(SampleError, match=complaint):
        Fungi(Recipe(objectives=[]), backbone=backbone).blocks(samples, ids)


def test_recipes_that_do_not_fit_the_backbone_are_refused(pictures, backbone):
    with pytest.raises(RecipeError, match="no backbone"):
        Fungi(Recipe(objectives=[])).fit(pictures)
    with pytest.raises(RecipeError, match="no backbone"):
        Fungi().fit(pictures)
    with pytest.raises(RecipeError, match=r"recipe is a Backbone; .*as backbone="):
        Fungi(backbone).fit(pictures)
    with pytest.raises(RecipeError, match="name targets in one place"):
        Fungi(Recipe(objectives=[], targets=["blocks.0.mlp.fc1"]), backbone=backbone).fit(pictures)
    with pytest.raises(RecipeError, match="no block 'simclr'"):
        Fungi(Recipe(objectives=[], combination=Combination(("simclr",))), backbone=backbone).fit(pictures)


# Negatives


def test_negatives_are_latents_of_rows_drawn_by_seed_whatever_their_order(pictures, backbone):
    fungi = Fungi(RECIPE, backbone=backbone).fit(pictures)
    bank = fungi.negatives["simclr"]
    assert bank.shape == (4 * 4, 12)
    turned = Fungi(RECIPE, backbone=backbone, batch_size=3, workers=2).fit(pictures[::-1])
    torch.testing.assert_close(turned.negatives["simclr"], bank, rtol=1e-5, atol=1e-6)
    other = Fungi(replace(RECIPE, seed=1), backbone=backbone).fit(pictures)
    assert not torch.allclose(other.negatives["simclr"], bank)

    latents = {}
    for at, image in enumerate(pictures):  # one row alone is its own bank
        alone = Fungi(RECIPE, backbone=backbone).fit([image])
        latents[at] = alone.negatives["simclr"]
    drawn = [at for part in bank.split(4) for at, own in latents.items() if torch.allclose(own, part, atol=1e-6)]
    assert len(drawn) == len(set(drawn)) == 4


def test_ids_that_are_the_digests_draw_the_same_negatives_as_none(pictures, backbone):
    named = Fungi(RECIPE, backbone=backbone).fit(pictures, ids=[content_digest(image) for image in pictures])
    unnamed = Fungi(RECIPE, backbone=backbone).fit(pictures)
    assert torch.equal(named.negatives["simclr"], unnamed.negatives["simclr"])


def test_every_row_is_drawn_where_there_are_too_few(pictures, backbone):
    fungi = Fungi(replace(RECIPE, objectives=[replace(SIMCLR_, negatives=50)]), backbone=backbone).fit(pictures)
    assert fungi.negatives["simclr"].shape == (10 * 4, 12)


def test_draws_are_spread_over_the_rows(backbone):
    drawn = []
    for seed in range(12):
        fungi = Fungi(Recipe(objectives=[replace(SIMCLR_, negatives=2)], seed=seed), backbone=backbone)
        asked = []

        def encode(objective, rows, asked=asked):
            asked += [row[0] for row in rows]
            return torch.zeros(len(rows), 4, 12)

        fungi.engine.encode = encode
        fungi.draw_negatives((f"{number}", noise_pictures(1)[0]) for number in range(20))
        drawn += asked
    assert len(drawn) == 24
    assert len(set(drawn)) > 10


def test_unreadable_rows_are_not_drawn(pictures, backbone):
    rows = [b"broken", *pictures[:4], b"worse"]
    ids = [f"{number}" for number in range(6)]
    fungi = Fungi(RECIPE, backbone=backbone, max_failures=0.5)
    with pytest.warns(UserWarning, match="2 of 6 rows are NaN"):
        fungi.fit(rows, ids=ids)
    assert fungi.negatives["simclr"].shape == (16, 12)
    assert fungi.negatives["simclr"].isfinite().all()


# Rows that cannot be read


def test_a_broken_row_is_nan_named_and_costs_no_other(pictures, backbone):
    fungi = Fungi(RECIPE, backbone=backbone, batch_size=2).fit(pictures)
    whole = fungi.transform(pictures)
    assert fungi.failures == []
    rows = [*pictures[:5], b"no image", *pictures[6:]]
    with pytest.warns(UserWarning, match=r"1 of 10 rows are NaN: row 5: "):
        features = fungi.transform(rows)
    assert np.isnan(features[5]).all()
    np.testing.assert_allclose(np.delete(features, 5, axis=0), np.delete(whole, 5, axis=0), atol=1e-5)
    assert [failure.id for failure in fungi.failures] == ["row 5"]
    assert fungi.failures[0].reason
    with pytest.warns(UserWarning, match="NaN: five: "):
        fungi.blocks(rows, ids=["a", "b", "c", "d", "e", "five", "g", "h", "i", "j"])
    fungi.transform(pictures)
    assert fungi.failures == []


def test_a_broken_row_in_the_fitting_set_changes_no_other_row(pictures, backbone):
    clean = Fungi(replace(RECIPE, size=4), backbone=backbone).fit_transform(pictures)
    with pytest.warns(UserWarning, match="NaN"):
        holed = Fungi(replace(RECIPE, size=4), backbone=backbone).fit_transform([*pictures[:3], b"", *pictures[3:]])
    assert np.isnan(holed[3]).all()
    np.testing.assert_allclose(np.delete(holed, 3, axis=0), clean, atol=1e-4)


def test_too_many_broken_rows_stop_the_call_and_are_named(pictures, backbone):
    fungi = Fungi(Recipe(objectives=[KL_]), backbone=backbone, max_failures=0.2)
    bad = [b"1", b"2", *pictures[:8]]
    with pytest.warns(UserWarning, match="2 of 10"):
        fungi.blocks(bad)
    with pytest.raises(
        TooManyFailures, match=r"3 of 11 rows cannot be read; at most 2 may fail \(row 0: .*; row 1: .*; row 10: "
    ) as caught:
        fungi.blocks([*bad, b"3"])
    assert [failure.id for failure in caught.value.failures] == ["row 0", "row 1", "row 10"]
    strict = Fungi(Recipe(objectives=[KL_]), backbone=backbone, max_failures=0)
    with pytest.raises(TooManyFailures, match="1 of 10 rows cannot be read; at most 0 may fail"):
        strict.blocks([b"1", *pictures[:9]])


def test_when_every_row_is_broken_the_reason_is_said(backbone):
    fungi = Fungi(RECIPE, backbone=backbone, max_failures=1.0)
    with pytest.raises(SampleError, match=r"none of 2 rows has features.*row 0: .*image"):
        fungi.fit([b"1", b"2"])
    with pytest.raises(SampleError, match="none of 1 rows has features"):
        Fungi(Recipe(objectives=[KL_]), backbone=backbone, max_failures=1.0).blocks([b"1"])


class Overflowing(nn.Module):
    """Like a network in half precision: bright images overflow it, before or behind its target."""

    def __init__(self, where):
        super().__init__()
        self.inner, self.where = small_module(), where

    def forward(self, images):
        bright = (images.amin(dim=(1, 2, 3)) > 1.5).view(-1, 1, 1) * torch.tensor(1e38)
        if self.where == "before":
            return self.inner.encode(self.inner.embed(images) + bright * 1e3)
        return self.inner(images) + bright * 1e3


@pytest.mark.parametrize("where", ["before", "behind"])
def test_an_input_that_overflows_the_network_costs_its_own_row_only(pictures, where):
    backbone = Backbone(Overflowing(where), preprocess=PREPROCESS)
    recipe = replace(RECIPE, objectives=[KL_, replace(SIMCLR_, negatives=5)])  # every row is drawn for the bank
    fungi = Fungi(recipe, backbone=backbone)
    plain = Fungi(recipe, backbone=backbone).fit(pictures[:4])
    white = Image.new("RGB", (40, 40), "white")
    with pytest.warns(UserWarning, match=r"1 of 5 rows are NaN: row 2: block '.*' is not finite"):
        features = fungi.fit_transform([*pictures[:2], white, *pictures[2:4]])
    assert np.isnan(features[2]).all()
    assert np.isfinite(np.delete(features, 2, axis=0)).all()
    # In the bank it would cost every row.
    assert torch.equal(fungi.negatives["simclr"], plain.negatives["simclr"])
    np.testing.assert_allclose(np.delete(features, 2, axis=0), plain.transform(pictures[:4]), atol=1e-5)


# Precision


def test_bfloat16_is_close_and_said(pictures, backbone):
    exact = Fungi(RECIPE, backbone=backbone)
    rough = Fungi(replace(RECIPE, dtype="bfloat16"), backbone=backbone)
    one, other = exact.fit_blocks(pictures), rough.fit_blocks(pictures)
    assert (exact.describe()["dtype"], rough.describe()["dtype"]) == ("float32", "bfloat16")
    assert list(one) == list(other)
    differ = 0
    for name in one:
        assert other[name].dtype == np.float32
        assert (one[name] * other[name]).sum(axis=1).min() > 0.99, name
        differ += not np.allclose(one[name], other[name], atol=1e-6)
    assert differ == len(one)


def test_precision_follows_the_weights_and_is_recorded(pictures):
    for dtype, name in ((torch.float64, "float64"), (torch.bfloat16, "bfloat16")):
        fungi = Fungi(Recipe(objectives=[KL_]), backbone=small_backbone(dtype=dtype))
        assert fungi.fit_transform(pictures).dtype == np.float32
        assert fungi.describe()["dtype"] == name


def test_float32_is_not_promised_of_half_weights(pictures):
    with pytest.raises(RecipeError, match="weights are bfloat16"):
        Fungi(Recipe(objectives=[], dtype="float32"), backbone=small_backbone(dtype=torch.bfloat16)).fit(pictures)


# scikit-learn


def labels_of(pictures):
    return [number % 2 for number in range(len(pictures))]


def test_parameters_are_listed_set_and_cloned(backbone):
    fungi = Fungi(RECIPE, backbone=backbone, batch_size=3, workers=2, max_failures=0.5)
    assert fungi.get_params(deep=False) == {
        "recipe": RECIPE,
        "backbone": backbone,
        "device": None,
        "batch_size": 3,
        "workers": 2,
        "max_failures": 0.5,
        "limits": None,
        "trust_remote_code": False,
        "allow_random": False,
        "progress": None,
    }
    copied = clone(fungi)
    assert copied is not fungi
    assert copied.get_params() == fungi.get_params()
    assert copied.backbone is backbone
    assert copied.set_params(batch_size=9, recipe=Recipe(objectives=[])).batch_size == 9
    assert copied.recipe.objectives == ()
    assert "Fungi" in repr(fungi)


def test_clones_are_not_fitted_and_fit_alike(pictures, backbone):
    fungi = Fungi(RECIPE, backbone=backbone)
    features = fungi.fit_transform(pictures)
    copied = clone(fungi)
    with pytest.raises(NotFitted):
        copied.transform(pictures)
    np.testing.assert_array_equal(copied.fit_transform(pictures), features)


def test_another_recipe_takes_effect(pictures, backbone):
    fungi = Fungi(Recipe(objectives=[KL_]), backbone=backbone)
    first = fungi.fit_blocks(pictures)["kl"]
    fungi.set_params(recipe=Recipe(objectives=[KL_], seed=1))
    assert relative_error(fungi.blocks(pictures)["kl"], first) > 0.1


def test_another_recipe_needs_another_fit(pictures, backbone):
    fungi = Fungi(Recipe(objectives=[KL_], size=4), backbone=backbone).fit(pictures)
    fungi.set_params(recipe=Recipe(objectives=[KL_], size=4, seed=1))
    with pytest.raises(NotFitted):
        fungi.transform(pictures)


def test_pipelines_and_cross_validation_work(pictures, backbone):
    labels = labels_of(pictures)
    for classifier in (LogisticRegression(), KNeighborsClassifier(1)):
        pipeline = make_pipeline(Fungi(replace(RECIPE, size=6), backbone=backbone), classifier)
        pipeline.fit(pictures, labels)
        assert pipeline.predict(pictures).shape == (10,)
        if isinstance(classifier, KNeighborsClassifier):
            assert pipeline.score(pictures, labels) == 1.0
    scores = cross_val_score(
        make_pipeline(Fungi(Recipe(objectives=[KL_]), backbone=backbone), KNeighborsClassifier(1)),
        pictures,
        labels,
        cv=2,
    )
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


# Saving

OTHER_PROCESS = """
import pickle, sys, numpy as np, torch
from sporeprint import Fungi

def refuse(*args, **kwargs):
    raise AssertionError("unpickled")

torch.load = pickle.load = pickle.loads = pickle.Unpickler = refuse
from PIL import Image
images = [Image.fromarray(image) for image in np.load(sys.argv[2])]
fungi = Fungi.load(sys.argv[1])
np.save(sys.argv[3], fungi.transform(images))
assert fungi.recipe.backbone == "tiny"
"""


def test_a_new_process_loads_the_same_features_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (12, 30, 30, 3), dtype=np.uint8)
    recipe = Recipe(
        backbone="tiny",
        objectives=[KL(), DINO(augmentation=Crops(1, 1)), SimCLR(augmentation=Patches(2), negatives=4)],
        size=10,
        combination=Combination(whiten=8),
        layers=1,
    )
    fungi = Fungi(recipe, device="cpu").fit(list(images))
    features = fungi.transform(list(images))
    fungi.save(tmp_path / "saved")
    assert sorted(os.listdir(tmp_path / "saved")) == ["fungi.json", "fungi.safetensors"]
    np.save(tmp_path / "images.npy", images)
    subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, tmp_path / "saved", tmp_path / "images.npy", tmp_path / "out.npy"],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), features)


def test_what_was_replaced_is_saved_too(pictures, backbone, tmp_path):
    fungi = Fungi(RECIPE, backbone=backbone).fit(pictures)
    fungi.heads["kl"] = nn.Linear(16, 30, bias=False)
    fungi.heads["simclr"] = nn.Linear(16, 12, dtype=torch.float64)
    fungi.negatives["simclr"] = torch.randn(5, 12)
    fungi.projection = Dense(torch.randn(11, 16 * 17))
    blocks = fungi.blocks(pictures)
    assert blocks["kl"].shape == (10, 11)
    fungi.save(tmp_path)
    loaded = Fungi.load(tmp_path, backbone=backbone, batch_size=3)
    assert loaded.batch_size == 3
    for name, values in loaded.blocks(pictures).items():
        np.testing.assert_allclose(values, blocks[name], atol=1e-6, err_msg=name)


def test_an_unfitted_fungi_is_saved_with_its_heads(pictures, backbone, tmp_path):
    fungi = Fungi(Recipe(objectives=[KL_]), backbone=backbone)
    fungi.save(tmp_path)
    loaded = Fungi.load(tmp_path, backbone=backbone)
    np.testing.assert_array_equal(loaded.blocks(pictures)["kl"], fungi.blocks(pictures)["kl"])
    with pytest.raises(NotFitted):
        loaded.transform(pictures)


def test_saving_over_an_older_one_replaces_it(pictures, backbone, tmp_path):
    Fungi(RECIPE, backbone=backbone).fit(pictures[:5]).save(tmp_path)
    fungi = Fungi(replace(RECIPE, size=3), backbone=backbone).fit(pictures)
    fungi.save(tmp_path)
    np.testing.assert_array_equal(
        Fungi.load(tmp_path, backbone=backbone).transform(pictures), fungi.transform(pictures)
    )


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (lambda: small_backbone(seed=1), "weights"),
        (lambda: small_backbone(pooling="mean"), "pooling"),
        (lambda: small_backbone(target="blocks.0.attn.proj"), "targets"),
        (lambda: Backbone(small_module(), preprocess=replace(PREPROCESS, mean=(0.0, 0.0, 0.0))), "preprocess"),
    ],
)
def test_another_backbone_is_refused_with_what_differs(pictures, backbone, tmp_path, other, complaint):
    Fungi(RECIPE, backbone=backbone).fit(pictures[:5]).save(tmp_path)
    with pytest.raises(StoreMismatch, match=complaint):
        Fungi.load(tmp_path, backbone=other())


def test_a_folder_that_holds_nothing_saved_is_named(tmp_path):
    with pytest.raises(DamagedStore, match=r"fungi\.json cannot be read"):
        Fungi.load(tmp_path)


@pytest.fixture(scope="module")
def packed(backbone):
    fungi = Fungi(replace(RECIPE, size=4), backbone=backbone).fit(noise_pictures(6))
    return fungi.pack()


def state(fungi):
    tensors = {f"{name}.{key}": value for name, head in fungi.heads.items() for key, value in head.state_dict().items()}
    tensors |= fungi.negatives | {k: torch.from_numpy(v) for k, v in fungi.combiner.arrays().items()}
    return tensors, fungi.recipe, fungi.combiner.combination, fungi.combiner.describe()


@given(data=st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_named_or_harmless(packed, backbone, data):
    name = data.draw(st.sampled_from(sorted(packed)))
    original = packed[name]
    at = data.draw(st.integers(0, len(original) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "drop", "double"]))
    damaged = {
        "flip": original[:at] + bytes([original[at] ^ data.draw(st.integers(1, 255))]) + original[at + 1 :],
        "cut": original[:at],
        "drop": original[:at] + original[at + 1 :],
        "double": original[: at + 1] + original[at:],
    }[how]
    files = {**packed, name: damaged}
    try:
        loaded = Fungi.unpack(files.__getitem__, "here", backbone)
    except SporeprintError:
        return
    expected = state(Fungi.unpack(packed.__getitem__, "here", backbone))
    found = state(loaded)
    assert found[1:] == expected[1:]
    assert set(found[0]) == set(expected[0])
    assert all(torch.equal(found[0][key], expected[0][key]) for key in expected[0])


@pytest.mark.parametrize(
    "text", ['{"sha256": "0", "a": 1e999}', '{"sha256": "0", "a": "\\ud800"}', "[]", "[" * 100_000]
)
def test_json_that_nobody_wrote_is_named(packed, backbone, text):
    with pytest.raises(DamagedStore, match=r"fungi\.json"):
        Fungi.unpack({**packed, "fungi.json": text.encode()}.__getitem__, "here", backbone)


def test_files_of_two_fits_do_not_mix(packed, backbone):
    other = Fungi(replace(RECIPE, size=4), backbone=backbone).fit(noise_pictures(6, seed=1)).pack()
    with pytest.raises(DamagedStore, match="safetensors does not match its checksum"):
        Fungi.unpack({**packed, "fungi.safetensors": other["fungi.safetensors"]}.__getitem__, "here", backbone)


def test_another_versions_format_is_named(packed, backbone):
    body = json.loads(packed["fungi.json"])
    del body["sha256"]
    body["format"] = 99
    body["sha256"] = hashlib.sha256(canonical(body)).hexdigest()
    with pytest.raises(SporeprintError, match="format 99"):
        Fungi.unpack({**packed, "fungi.json": json.dumps(body).encode()}.__getitem__, "here", backbone)


def test_the_saved_json_says_what_was_computed(pictures, backbone, tmp_path):
    Fungi(RECIPE, backbone=backbone).fit(pictures).save(tmp_path)
    body = json.loads((tmp_path / "fungi.json").read_text())
    assert Recipe.from_json(body["recipe"]) == RECIPE
    assert body["resolved"]["dtype"] == "float32"
    assert body["resolved"]["backbone"]["targets"] == ["blocks.1.attn.proj"]
    assert body["combiner"]["names"] == ["embedding", "kl", "dino", "simclr"]


def test_nothing_warns_on_a_plain_run(pictures, backbone):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Fungi(replace(RECIPE, size=4), backbone=backbone).fit(pictures).transform(pictures)


def test_limits_of_another_type_are_refused_by_name(pictures, backbone):
    with pytest.raises(RecipeError, match="limits is a dict; expected Limits"):
        Fungi(RECIPE, backbone=backbone, limits={"max_pixels": 5}).fit(pictures)


def test_a_fit_on_one_row_says_that_whitening_leaves_nothing_of_it(pictures, backbone):
    fungi = Fungi(Recipe(layers=1), backbone=backbone)
    with pytest.warns(SporeprintWarning, match="fitted on one row, whose whitened blocks are 0; fit on more rows"):
        assert not fungi.fit_transform(pictures[:1]).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fungi.fit(pictures[:2])
        Fungi(Recipe(layers=1, combination="paper"), backbone=backbone).fit(pictures[:1])
