import json
import re
import warnings

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from sporeprint import Combination
from sporeprint.errors import RecipeError, SporeprintWarning
from sporeprint.features.blocks import family, paper_blocks
from sporeprint.features.combine import Combiner, named


def unit(rows):
    """One row at a time; zeros stay zeros."""
    rows = np.array(rows, dtype=np.float64)
    for row in rows:
        length = sum(value * value for value in row) ** 0.5
        row /= length or 1.0
    return rows


def some_blocks(rows=40, seed=0):
    rng = np.random.default_rng(seed)
    widths = {"embedding": 6, "cls-1": 4, "dino.views": 6, "kl": 5, "dino": 5}
    blocks = {}
    for name, width in widths.items():
        blocks[name] = unit(rng.standard_normal((rows, width)) * np.arange(1, width + 1)).astype(np.float32)
    return blocks


def test_parts_are_normalised_each_by_itself_and_joined_in_order():
    blocks = {
        "kl": np.array([[3.0, 4.0], [0.0, -2.0]], dtype=np.float32),
        "embedding": np.array([[5.0, 12.0], [1.0, 0.0]], dtype=np.float32),
    }
    combiner = Combination(("embedding", "kl")).fit(blocks)
    expected = [[5 / 13, 12 / 13, 0.6, 0.8], [1, 0, 0, -1]]
    np.testing.assert_allclose(combiner.transform(blocks), expected, rtol=1e-6)
    np.testing.assert_allclose(Combination(("kl", "embedding")).fit(blocks).transform(blocks)[0, :2], [0.6, 0.8])
    assert combiner.width == 4
    assert combiner.transform(blocks).dtype == np.float32


def test_the_paper_joins_the_embedding_and_every_gradient_in_the_blocks_order():
    blocks = some_blocks()
    assert paper_blocks(blocks) == ("embedding", "kl", "dino")
    assert Combination().fit(blocks).names == ("embedding", "kl", "dino")
    np.testing.assert_array_equal(
        Combination().fit(blocks).transform(blocks),
        np.concatenate([Combination((name,)).fit(blocks).transform(blocks) for name in ("embedding", "kl", "dino")], 1),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embedding", "embedding"),
        ("cls-12", "layers"),
        ("patches-1", "layers"),
        ("tokens-6", "layers"),
        ("attention-12", "layers"),
        ("last-12", "layers"),
        ("tokens-", "gradients"),
        ("last-x", "gradients"),
        ("first-3", "gradients"),
        ("dino.views", "views"),
        ("dino.spread", "views"),  # in stores of earlier versions
        ("kl", "gradients"),
        ("kl-15", "gradients"),
        ("simclr@blocks.11.attn.proj", "gradients"),
        ("kl@blocks-1", "gradients"),
        ("cls-x", "gradients"),
        ("cls", "gradients"),
    ],
)
def test_families_are_told_by_the_name(name, expected):
    assert family(name) == expected


def same_up_to_signs(a, b, tolerance=1e-5):
    signs = np.sign((a * b).sum(axis=0))
    np.testing.assert_allclose(a * signs, b, atol=tolerance)


@pytest.mark.parametrize("rows", [40, 9])
def test_size_is_scikit_learns_pca_of_the_joined_parts(rows):
    train, test = some_blocks(rows), some_blocks(25, seed=1)
    joined, test_joined = (
        np.concatenate([unit(blocks[name]) for name in ("embedding", "kl")], axis=1) for blocks in (train, test)
    )
    pca = PCA(7, svd_solver="full").fit(joined)
    combiner = Combination(("embedding", "kl"), size=7).fit(train)
    assert combiner.width == 7
    assert combiner.transform(test).shape == (25, 7)
    same_up_to_signs(combiner.transform(train), pca.transform(joined))
    same_up_to_signs(combiner.transform(test), pca.transform(test_joined))


@pytest.mark.parametrize("size", [11, 12, 500])
def test_pca_is_skipped_where_it_would_not_reduce(size):
    blocks = some_blocks()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        combiner = Combination(("embedding", "kl"), size=size).fit(blocks)
    assert [str(one.message) for one in said] == [
        f"PCA size: {size} dimensions wanted, 11 used: what is joined has no more"
    ] * (size > 11)
    assert combiner.pca is None
    assert combiner.width == 11
    np.testing.assert_array_equal(combiner.transform(blocks), Combination(("embedding", "kl")).fit(blocks).join(blocks))


def test_more_size_than_rows_is_said_and_recorded():
    blocks = some_blocks(5)
    with pytest.warns(UserWarning, match="size: 8 dimensions wanted, 5 used"):
        combiner = Combination(("embedding", "kl"), size=8).fit(blocks)
    assert combiner.width == 5
    assert combiner.transform(blocks).shape == (5, 5)
    described = combiner.describe()
    assert described == {"names": ["embedding", "kl"], "widths": {"embedding": 6, "kl": 5}, "width": 5, "rows": 5}


def test_more_whitened_axes_than_a_block_has_is_said():
    with pytest.warns(UserWarning, match="whiten of 'kl': 6 dimensions wanted, 5 used"):
        combiner = Combination(("kl",), whiten=6).fit(some_blocks())
    assert combiner.width == 5


def test_whitening_centres_turns_scales_and_normalises_again():
    train, test = some_blocks(60), some_blocks(20, seed=1)
    combiner = Combination(("embedding", "kl"), whiten=4).fit(train)
    for at, name in enumerate(("embedding", "kl")):
        pca = PCA(4, whiten=True, svd_solver="full").fit(unit(train[name]))
        before = combiner.whiteners[name](train[name], exponent=1)
        np.testing.assert_allclose(np.cov(before.T), np.eye(4), atol=1e-4)
        np.testing.assert_allclose(before.mean(axis=0), 0, atol=1e-5)
        part = combiner.transform(test)[:, 4 * at : 4 * at + 4]
        same_up_to_signs(part, unit(pca.transform(unit(test[name]))))
    assert combiner.width == 8


@pytest.mark.parametrize("rows", [60, 9, 4])
@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_auto_whitens_by_ledoit_and_wolfs_covariance(rows, exponent):
    """Their covariance, as scikit-learn estimates it, to the power -exponent / 2, within the span of the rows."""
    train, test = some_blocks(rows), some_blocks(20, seed=1)
    combiner = Combination(("kl",), whiten="auto", exponent=exponent).fit(train)
    parts = unit(train["kl"])
    covariance = LedoitWolf().fit(parts).covariance_
    values, vectors = np.linalg.eigh(covariance)
    root = vectors @ np.diag(values ** (-exponent / 2)) @ vectors.T
    centred = parts - parts.mean(axis=0)
    span = np.linalg.pinv(centred) @ centred
    expected = unit((unit(test["kl"]) - parts.mean(axis=0)) @ span @ root)
    features = combiner.transform(test)
    assert features.shape == (20, min(rows, 5))
    np.testing.assert_allclose(features @ features.T, expected @ expected.T, atol=2e-5)


@pytest.mark.parametrize("weights", [None, (2.0, 1.0, 0.5)])
def test_a_combination_over_some_blocks_stays_what_it_is_where_there_are_more(weights):
    blocks, test = some_blocks(), some_blocks(7, seed=1)
    combination = Combination(("embedding", "layers", "gradients"), "auto", None, 0.5, weights)
    subset = {name: blocks[name] for name in ("embedding", "cls-1", "kl")}
    fixed = combination.over(subset)
    assert fixed.blocks == ("embedding", "cls-1", "kl")
    np.testing.assert_allclose(
        fixed.fit(blocks).transform(test), combination.fit(subset).transform(test), rtol=0, atol=1e-6
    )
    assert fixed.over(blocks) == fixed


def test_whiteners_are_shared_between_combinations_of_the_same_rows():
    train, test = some_blocks(), some_blocks(7, seed=1)
    shared = {}
    for combination in (
        Combination(whiten="auto"),
        Combination(("kl", "cls-1"), "auto", exponent=0.5),
        Combination(whiten=3),
    ):
        np.testing.assert_array_equal(
            combination.fit(train, shared).transform(test), combination.fit(train).transform(test)
        )
    assert set(shared) == {
        *((name, "auto") for name in ("embedding", "kl", "dino", "cls-1")),
        *((name, 3) for name in ("embedding", "kl", "dino")),
    }


def test_an_exponent_of_0_centres_only():
    train = some_blocks()
    features = Combination(("kl",), whiten="auto", exponent=0).fit(train).transform(train)
    centred = unit(unit(train["kl"]) - unit(train["kl"]).mean(axis=0))
    np.testing.assert_allclose(features @ features.T, centred @ centred.T, atol=1e-5)


def test_families_stand_for_their_blocks_and_weights_are_shared_among_them():
    blocks = {**some_blocks(), "patches-1": some_blocks(seed=1)["cls-1"]}
    combination = Combination(("embedding", "layers", "dino"), weights=(2.0, 1.0, 0.5))
    combiner = combination.fit(blocks)
    assert combiner.names == ("embedding", "cls-1", "patches-1", "dino")
    half = 0.5**0.5
    parts = [2 * unit(blocks["embedding"]), half * unit(blocks["cls-1"]), half * unit(blocks["patches-1"])]
    np.testing.assert_allclose(
        combiner.transform(blocks), np.concatenate([*parts, 0.5 * unit(blocks["dino"])], axis=1), atol=1e-6
    )
    assert Combination(("embedding", "cls-1", "layers")).fit(blocks).names == ("embedding", "cls-1", "patches-1")
    without = {"embedding": blocks["embedding"], "kl": blocks["kl"]}
    assert named("decorrelated").fit(without).names == ("embedding", "kl")
    with pytest.raises(RecipeError, match="no block of views; there are: embedding, kl"):
        Combination(("views",)).fit(without)


def test_a_block_named_by_itself_has_its_own_weight_and_no_part_in_its_familys():
    there = ("embedding", "cls-6", "patches-6", "cls-11")
    half = 2 / 2**0.5  # of the family's 2: two members are left to it
    expected = {"cls-6": 5.0, "patches-6": half, "cls-11": half}
    for blocks, weights in ((("layers", "cls-6"), (2.0, 5.0)), (("cls-6", "layers"), (5.0, 2.0))):
        combination = Combination(blocks, weights=weights)
        assert combination.members(there) == pytest.approx(expected)
        assert combination.over(there).members(there) == combination.members(there)
        assert list(combination.members(there)) == list(expected)
    assert Combination(("layers", "cls-6"), weights=(2.0, 5.0)).members(["cls-6"]) == {"cls-6": 5.0}
    assert Combination(("layers", "cls-6")).members(there) == dict.fromkeys(expected, 1.0)
    rows = {name: np.array([[3.0, 4.0]], dtype=np.float32) for name in there}
    features = Combination(("layers", "cls-6"), weights=(2.0, 5.0)).fit(rows).transform(rows)
    np.testing.assert_allclose(features, [[3, 4, 0.6 * half, 0.8 * half, 0.6 * half, 0.8 * half]], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"whiten": "ledoit"}, "whiten='ledoit'; expected an integer of at least 1, 'auto', or None"),
        ({"whiten": 3, "exponent": 1.5}, "exponent=1.5; expected a number from 0 to 1"),
        ({"whiten": 3, "exponent": True}, "exponent=True; expected a number"),
        ({"exponent": 0.5}, "exponent=0.5 without whiten"),
        ({"weights": (1.0,)}, "expected one for each of blocks=None"),
        ({"blocks": ("kl",), "weights": (1.0, 2.0)}, "expected one for each of blocks="),
        ({"blocks": ("kl",), "weights": (0.0,)}, "expected positive numbers"),
        ({"blocks": ("kl",), "weights": (float("nan"),)}, "expected positive numbers"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        Combination(**settings)


@pytest.mark.parametrize("rows", [1, 2, 20])
def test_few_rows_constant_blocks_and_duplicates_give_finite_features(rows):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((rows, 30)).astype(np.float32)
    blocks = {"embedding": noise, "kl": np.ones((rows, 8), np.float32), "cls-1": np.repeat(noise[:1], rows, axis=0)}
    test = {"embedding": noise[:1], "kl": np.full((1, 8), 2, np.float32), "cls-1": -noise[:1]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for exponent in (0, 0.5, 1):
            combiner = Combination(("embedding", "kl", "cls-1"), whiten="auto", exponent=exponent).fit(blocks)
            features = combiner.transform(blocks)
            assert np.isfinite(features).all()
            assert np.isfinite(combiner.transform(test)).all()
            assert features.shape == (rows, combiner.width)
            start = 0
            for name, axes in combiner.whiteners.items():
                part = features[:, start : start + len(axes.variance)]
                start += len(axes.variance)
                lengths = np.linalg.norm(part, axis=1)
                constant = rows == 1 or name != "embedding"
                np.testing.assert_allclose(lengths, 0 if constant else 1, atol=1e-6)


def test_weights_families_and_exponent_come_back_from_what_was_saved():
    blocks, test = some_blocks(), some_blocks(7, seed=1)
    combination = Combination(("embedding", "gradients"), "auto", 6, 0.5, (2.0, 1.0))
    combiner = combination.fit(blocks)
    back = Combiner.restore(combination, json.loads(json.dumps(combiner.describe())), combiner.arrays())
    np.testing.assert_array_equal(back.transform(test), combiner.transform(test))


def test_whitened_parts_can_be_reduced_too():
    train = some_blocks(60)
    combiner = Combination(("embedding", "kl"), whiten=4, size=3).fit(train)
    joined = Combination(("embedding", "kl"), whiten=4).fit(train).transform(train)
    same_up_to_signs(combiner.transform(train), PCA(3, svd_solver="full").fit_transform(joined))


def test_the_fit_looks_at_the_training_rows_only():
    train, test = some_blocks(), some_blocks(5, seed=1)
    combiner = Combination(whiten=3, size=4).fit(train)
    alone = np.concatenate([combiner.transform({k: v[[row]] for k, v in test.items()}) for row in range(5)])
    np.testing.assert_allclose(alone, combiner.transform(test), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_block_that_never_varies_whitens_to_zeros_not_to_noise(seed):
    row = unit(np.random.default_rng(seed).standard_normal((1, 50))).astype(np.float32)
    blocks = {"embedding": some_blocks(30)["embedding"], "kl": np.repeat(row, 30, axis=0)}
    combiner = Combination(("kl",), whiten=5).fit(blocks)
    features = combiner.transform(blocks)
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(features, np.zeros_like(features))


def test_axes_without_variance_stay_zero_beside_others():
    rng = np.random.default_rng(0)
    plane = np.zeros((50, 8), dtype=np.float32)
    angles = rng.uniform(0, 2 * np.pi, 50)
    plane[:, 0], plane[:, 1] = np.cos(angles), np.sin(angles)
    features = Combination(("embedding",), whiten=6).fit({"embedding": plane}).transform({"embedding": plane})
    assert np.abs(features[:, 2:]).max() == 0
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)


def test_a_constant_block_is_reduced_without_complaint():
    blocks = {"embedding": np.tile(np.float32([[0.6, 0.8, 0.0]]), (10, 1))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = Combination(("embedding",), size=2).fit(blocks).transform(blocks)
    np.testing.assert_allclose(features, 0, atol=1e-6)


@pytest.mark.parametrize("combination", [Combination(size=4), Combination(whiten=3), Combination(whiten=3, size=4)])
def test_duplicate_rows_have_equal_features(combination):
    blocks = {name: np.repeat(values, 2, axis=0) for name, values in some_blocks(20).items()}
    features = combination.fit(blocks).transform(blocks)
    np.testing.assert_allclose(features[::2], features[1::2], atol=1e-6)


@pytest.mark.parametrize("combination", [Combination(), Combination(size=4), Combination(whiten=3)])
def test_one_row_can_be_fitted(combination):
    blocks = some_blocks(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*dimensions wanted")
        warnings.simplefilter("error", RuntimeWarning)
        combiner = combination.fit(blocks)
        features = combiner.transform(some_blocks(3, seed=1))
    assert features.shape == (3, combiner.width)
    assert np.isfinite(features).all()
    assert all(np.isfinite(values).all() for values in combiner.arrays().values())


@pytest.mark.parametrize("combination", [Combination(), Combination(size=4), Combination(whiten=3)])
def test_no_finite_row_is_refused(combination):
    with pytest.raises(RecipeError, match="no rows"):
        combination.fit(some_blocks(0))
    with pytest.raises(RecipeError, match="no rows"):
        combination.fit({name: values * np.nan for name, values in some_blocks(3).items()})


@pytest.mark.parametrize("combination", [Combination(), Combination(size=4), Combination(whiten=3, size=4)])
def test_rows_of_nan_stay_nan_and_change_no_other(combination):
    clean, holed = some_blocks(), some_blocks(41)
    for name in holed:
        holed[name] = np.insert(clean[name], 7, np.nan, axis=0)
    features = combination.fit(holed).transform(holed)
    assert np.isnan(features[7]).all()
    np.testing.assert_allclose(np.delete(features, 7, axis=0), combination.fit(clean).transform(clean), atol=1e-5)


def test_a_zero_row_stays_zero_in_its_part():
    blocks = {"embedding": np.float32([[0, 0], [3, 4]]), "kl": np.float32([[0, 2], [1, 0]])}
    features = Combination().fit(blocks).transform(blocks)
    np.testing.assert_allclose(features, [[0, 0, 0, 1], [0.6, 0.8, 1, 0]], rtol=1e-6)


@pytest.mark.parametrize("combination", [Combination(), Combination(("kl",), size=2), Combination(whiten=3, size=4)])
def test_a_combiner_comes_back_from_what_it_describes(combination):
    train, test = some_blocks(), some_blocks(9, seed=1)
    combiner = combination.fit(train)
    back = Combiner.restore(combination, combiner.describe(), combiner.arrays())
    np.testing.assert_array_equal(back.transform(test), combiner.transform(test))
    assert back.describe() == combiner.describe()
    assert back.width == combiner.width


def test_block_names_with_slashes_come_back():
    blocks = {"embedding": some_blocks()["embedding"], "kl@a/b.c": some_blocks()["kl"]}
    combination = Combination(whiten=3)
    combiner = combination.fit(blocks)
    back = Combiner.restore(combination, combiner.describe(), combiner.arrays())
    np.testing.assert_array_equal(back.transform(blocks), combiner.transform(blocks))


def test_a_fit_can_be_repeated_from_the_same_blocks():
    combination = Combination(whiten=4, size=5)
    first, second = combination.fit(some_blocks()), combination.fit(some_blocks())
    np.testing.assert_array_equal(first.transform(some_blocks()), second.transform(some_blocks()))


def test_blocks_are_not_changed():
    blocks = some_blocks()
    combiner = Combination(whiten=3, size=4).fit(blocks)
    combiner.transform(blocks)
    for name, values in some_blocks().items():
        np.testing.assert_array_equal(blocks[name], values)


def test_unknown_and_changed_blocks_are_refused():
    blocks = some_blocks()
    with pytest.raises(RecipeError, match="no block 'simclr'; there are: embedding, cls-1"):
        Combination(("embedding", "simclr")).fit(blocks)
    combiner = Combination(("kl",)).fit(blocks)
    with pytest.raises(RecipeError, match="'kl' is 4 wide; it was fitted at 5"):
        combiner.transform({"kl": blocks["kl"][:, :4]})
    with pytest.raises(RecipeError, match="no block 'kl'"):
        combiner.transform({"embedding": blocks["embedding"]})


@pytest.mark.parametrize("fields", [{"blocks": ()}, {"whiten": 0}, {"size": 0}, {"size": -1}])
def test_combinations_of_nothing_are_refused(fields):
    with pytest.raises(RecipeError, match="at least"):
        Combination(**fields)


def test_a_combination_is_a_value():
    assert Combination("kl") == Combination(["kl"]) == Combination(("kl",))
    assert len({Combination("kl"), Combination(("kl",)), Combination(("kl",), size=3)}) == 2


def test_the_recipes_size_fills_in_only_what_a_combination_leaves_open():
    assert named("paper") == Combination()
    assert named("paper", 5) == Combination(size=5)
    assert named(Combination(("kl",), whiten=3), 5) == Combination(("kl",), whiten=3, size=5)
    assert named(Combination(size=9), 5) == Combination(size=9)


def test_a_size_beyond_what_is_joined_is_said():
    blocks = {"embedding": np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)}
    with pytest.warns(SporeprintWarning, match=r"size: 5 dimensions wanted, 4 used: what is joined has no more"):
        combiner = Combination(("embedding",), size=5).fit(blocks)
    assert combiner.transform(blocks).shape == (9, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Combination(("embedding",), size=4).fit(blocks)
