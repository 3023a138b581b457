"""What `fit_dense` refuses, keeps when it fails, and needs of its surroundings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from small import noise_pictures, small_backbone
from sporeprint import Copies, Dense, Fungi, Recipe, TokenKL, TokenSimCLR
from sporeprint.errors import BackboneError, NotFitted, RecipeError, SampleError, TooManyFailures

BROKEN = b"no image"


def fungi_of(dense: Dense, **options: Any) -> Fungi:
    return Fungi(Recipe(dtype="float32", dense=dense), backbone=small_backbone(), **options)


def test_layers_are_joined_unless_it_is_said_otherwise() -> None:
    pictures = noise_pictures(3)
    assert fungi_of(Dense(layers=(1,), size=32)).fit_dense(pictures).dense(pictures).shape[-1] == 3 * 16
    paper = Dense(layers=(1,), size=32, combination="paper")
    assert fungi_of(paper).fit_dense(pictures).dense(pictures).shape[-1] == 32


def test_a_failed_fit_leaves_what_was_fitted_before() -> None:
    pictures: list[Any] = noise_pictures(4)
    fungi = fungi_of(Dense(size=32)).fit_dense(pictures[:2])
    expected = fungi.dense(pictures)
    with pytest.raises(TooManyFailures):
        fungi.fit_dense([*pictures[2:], BROKEN, BROKEN])
    np.testing.assert_array_equal(fungi.dense(pictures), expected)


def test_a_fit_that_fails_after_its_support_was_drawn_restores_the_support() -> None:
    pictures: list[Any] = noise_pictures(4)
    fungi = fungi_of(Dense(objectives=(TokenSimCLR(),), size=32)).fit_dense(pictures[:2], ["a", "b"])
    support, expected = fungi.patches.engine.support, fungi.dense(pictures)
    with pytest.raises(TooManyFailures):
        fungi.fit_dense([*pictures[2:], BROKEN, BROKEN], ["c", "d", "e", "f"])
    assert fungi.patches.engine.support is support
    np.testing.assert_array_equal(fungi.dense(pictures), expected)


def test_images_before_the_failure_that_is_too_many_are_given() -> None:
    fungi = fungi_of(Dense(size=32), max_failures=0).fit_dense(noise_pictures(2))
    maps = fungi.patches.maps([("a", noise_pictures(1)[0]), ("b", BROKEN), ("c", BROKEN)])
    row_id, features = next(maps)
    assert (row_id, features is None) == ("a", False)
    with pytest.raises(TooManyFailures, match=r"1 of 3 rows cannot be read; at most 0 may fail \(b: "):
        next(maps)
    assert [row.id for row in fungi.patches.failures] == ["b"]


def test_a_failed_first_fit_is_no_fit() -> None:
    fungi = fungi_of(Dense(size=32))
    with pytest.raises(TooManyFailures):
        fungi.fit_dense([noise_pictures(1)[0], BROKEN, BROKEN])
    assert not fungi.fitted_dense
    with pytest.raises(NotFitted):
        fungi.dense(noise_pictures(1))


@pytest.mark.parametrize("ids", [None, ["a", "b", "c", "d", "e"]])
def test_unreadable_images_are_counted_and_named(ids: list[str] | None) -> None:
    images: list[Any] = [*noise_pictures(3), BROKEN, BROKEN]
    with pytest.raises(TooManyFailures, match="row 3" if ids is None else "[de]: "):
        fungi_of(Dense(size=32)).fit_dense(images, ids)
    fungi = fungi_of(Dense(size=32), max_failures=0.5).fit_dense(images, ids)
    assert {failure.id for failure in fungi.failures} == ({"row 3", "row 4"} if ids is None else {"d", "e"})


def test_images_of_which_none_can_be_read_are_refused() -> None:
    with pytest.raises(SampleError, match="none of 1 images"):
        fungi_of(Dense(objectives=(TokenKL(),), size=32), max_failures=1.0).fit_dense([BROKEN], ["a"])


def test_an_id_given_twice_is_refused() -> None:
    with pytest.raises(SampleError, match="id 'a' is given to two images"):
        fungi_of(Dense(size=32)).fit_dense(noise_pictures(3), ["a", "b", "a"])


@pytest.mark.parametrize("size", [(24, 44), (4, 32)])
def test_a_size_that_is_not_in_whole_patches_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(BackboneError, match="Nearest"):
        fungi_of(Dense(size=size)).fit_dense(noise_pictures(2))


def test_more_patches_than_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sporeprint.features.dense.dense_engine.MOST_PATCHES", 20)
    with pytest.raises(RecipeError, match="36 patches of the largest copy"):
        fungi_of(Dense(size=32, copies=Copies(scales=(1.0, 1.5)))).fit_dense(noise_pictures(2))
    large = noise_pictures(1)[0].resize((80, 40))
    with pytest.warns(UserWarning, match="50 patches"):
        features = fungi_of(Dense(objectives=(TokenKL(),)), max_failures=0.5).dense([large, large.resize((32, 32))])
    assert np.isnan(features[0]).all() if isinstance(features, np.ndarray) else features[0] is None


def test_a_callers_inference_mode_does_not_matter() -> None:
    pictures = noise_pictures(3)
    expected = fungi_of(Dense(size=32)).fit_dense(pictures).dense(pictures)
    fungi = fungi_of(Dense(size=32))
    with torch.inference_mode():
        features = fungi.fit_dense(pictures).dense(pictures)
    np.testing.assert_array_equal(features, expected)


def test_weights_changed_through_data_are_seen() -> None:
    pictures = noise_pictures(2)
    fungi = Fungi(Recipe(dtype="bfloat16", dense=Dense(size=32)), backbone=small_backbone()).fit_dense(pictures)
    fungi.dense(pictures)
    fungi.network.module.blocks[0].attn.qkv.weight.data.mul_(3)
    changed = fungi.dense(pictures)
    fungi.network.quick = False
    assert np.abs(fungi.dense(pictures) - changed)[..., :16].max() < 0.02


def test_an_image_alone_has_the_features_that_it_has_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = noise_pictures(5)
    dense = Dense(objectives=(TokenSimCLR(),), size=32, copies=Copies(shifts=2, scales=(1.0, 1.5)))
    fungi = fungi_of(dense).fit_dense(pictures)
    expected = fungi.dense(pictures)
    monkeypatch.setattr("sporeprint.features.dense.dense_features.TOGETHER", 1)
    monkeypatch.setitem(__import__("sporeprint.features.dense.dense_engine", fromlist=["x"]).TOKENS_A_PASS, "cpu", 1)
    np.testing.assert_allclose(fungi.dense(pictures), expected, atol=1e-5)


def test_where_memory_runs_out_fewer_images_pass_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = noise_pictures(4)
    fungi = fungi_of(Dense(objectives=(TokenKL(),), size=32))
    expected = fungi.dense(pictures)
    engine = fungi.patches.engine
    whole = engine._one_pass

    def short_of_memory(rows: Any, jobs: Any, plain: bool) -> Any:
        if len(jobs) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return whole(rows, jobs, plain)

    monkeypatch.setattr(engine, "_one_pass", short_of_memory)
    with pytest.warns(UserWarning, match="memory ran out"):
        features = fungi.dense(pictures)
    np.testing.assert_allclose(features, expected, atol=1e-5)
