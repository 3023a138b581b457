"""One row of a table: its price, its features, and what it says of itself."""

import json

import numpy as np
import pytest

from small_blocks import INFO, classed_blocks
from sporeprint.evaluate.choice.candidates import Candidate
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.table import Costs, entries_of, entry_of, features
from sporeprint.features import combine
from sporeprint.features.combine import NAMED, Combination
from sporeprint.features.whiten import fit_shrunk_axes

SECONDS = {"whole": 2.0, "simclr": 6.0, "projection": 1.0, "negatives": 99.0}
WIDTHS = {"embedding": 6, "cls-1": 4, "kl": 3}
COMBINATIONS = [
    Combination(("embedding", "kl"), "auto"),
    Combination(("kl", "layers"), "auto", exponent=0.5),
    Combination(("embedding", "kl"), 2, size=3),
    Combination(),
    NAMED["decorrelated"],
]
LAYERS = tuple(f"{kind}-{number}" for number in (1, 2) for kind in ("cls", "tokens"))
PAIR = ("embedding", "kl")


def some_blocks(rows, seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((rows, width)).astype(np.float32) for name, width in WIDTHS.items()}


@pytest.mark.parametrize("damaged", [False, True])
def test_features_are_those_of_each_combination_fitted_by_itself(damaged):
    train, test, ways = some_blocks(12, 0), some_blocks(5, 1), COMBINATIONS
    if damaged:
        train["kl"][3] = np.nan  # leaves a row to combinations without kl, which it must not share
        ways = [*ways, Combination(("embedding",), "auto")]
    for way, joined in zip(ways, features(train, test, ways), strict=True):
        alone = way.fit(train)
        np.testing.assert_array_equal(joined.rows, alone.transform(train))
        np.testing.assert_array_equal(joined.others, alone.transform(test))
    assert next(features(train, None, COMBINATIONS)).others is None


def test_each_block_is_whitened_once_for_all_exponents(monkeypatch):
    fitted = []
    monkeypatch.setattr(combine, "fit_shrunk_axes", lambda rows: fitted.append(rows.shape[1]) or fit_shrunk_axes(rows))
    ways = [Combination(("embedding", "kl"), "auto", exponent=exponent) for exponent in (0.5, 0.75, 1.0)]
    assert len(list(features(some_blocks(12, 0), None, ways))) == 3
    assert sorted(fitted) == [WIDTHS["kl"], WIDTHS["embedding"]]


def test_passes_count_each_set_of_views_once():
    costs = Costs(INFO, {}, 0)
    assert costs.passes(["embedding"]) == costs.passes(["embedding", "cls-1", "kl"]) == 1
    assert costs.passes(["simclr"]) == costs.passes(["simclr", "simclr.views"]) == 9
    assert costs.passes(list(INFO)) == 10


def test_a_smaller_view_is_a_fraction_of_a_pass_and_fractions_add_up():
    info = {
        "embedding": {"family": "embedding", "views": "whole", "passes": 1},
        "dino": {"family": "gradients", "views": "dino", "passes": 3.3},
        "simclr": {"family": "gradients", "views": "simclr", "passes": 2.9},
        "other": {"family": "gradients", "views": "other", "passes": 0.7},
    }
    costs = Costs(info, {}, 0)
    assert costs.passes(["embedding", "dino", "simclr"]) == 7.2
    assert costs.passes(["dino", "other"]) == 4
    assert isinstance(costs.passes(["dino", "other"]), int)


def test_speed_is_the_time_of_the_views_and_of_the_share_of_projecting():
    costs = Costs(INFO, SECONDS, 100)
    assert costs.rows_per_second(["embedding"]) == 50.0
    assert costs.rows_per_second(["embedding", "cls-1", "kl"]) == 40.0  # 2 s and half of the projection's one
    assert costs.rows_per_second(["embedding", "simclr.views"]) == 12.5
    assert costs.rows_per_second(list(INFO)) == pytest.approx(100 / 9)
    assert costs.rows_per_second(["simclr"]) == pytest.approx(100 / 6.5)


def test_speed_is_unknown_where_the_store_does_not_say():
    assert Costs(INFO, {}, 100).rows_per_second(["embedding"]) is None
    assert Costs(INFO, SECONDS, 0).rows_per_second(["embedding"]) is None
    assert Costs(INFO, {"whole": 2.0}, 100).rows_per_second(["embedding", "simclr"]) is None
    assert Costs(INFO, {"whole": 0.0}, 100).rows_per_second(["embedding"]) is None


def test_free_is_what_the_embeddings_own_pass_gives_and_another_single_view_is_not():
    info = {**INFO, "mlm": {"family": "gradients", "views": "masked", "passes": 1}}
    costs = Costs(info, {}, 0)
    assert costs.free(list(info)) == ["embedding", "cls-1", "kl"]
    assert costs.passes(["embedding", "mlm"]) == 2


def test_a_price_is_of_the_fitted_features():
    blocks, _ = classed_blocks(20)
    combination = Combination(("embedding", "simclr"), whiten=4)
    entry = entry_of(Candidate("x", "combined", combination), combination.fit(blocks), Costs(INFO, SECONDS, 100), {})
    assert (entry.name, entry.role, entry.combination) == ("x", "combined", combination)
    assert (entry.blocks, entry.width, entry.bytes_per_row, entry.passes) == (("embedding", "simclr"), 8, 32, 10)
    assert entry.rows_per_second == pytest.approx(100 / 8.5)
    assert entry.whitened == {"embedding": 4, "simclr": 4}


def test_entries_are_judged_on_features_of_both_sets_and_their_json_is_plain():
    train, test = some_blocks(12, 0), some_blocks(5, 1)
    candidates = [Candidate("raw", "embedding", Combination(("embedding",))), Candidate("all", "paper", Combination())]
    info = {name: {"family": "", "views": "whole", "passes": 1} for name in WIDTHS}
    messages = []

    def judge(of):
        return {"20": Result(0.25), "auto": Result(float(len(of.rows) * len(of.others)))}

    raw, whole = entries_of(candidates, train, test, Costs(info), judge, messages.append)
    assert (raw.name, raw.width, whole.name, whole.width) == ("raw", 6, "all", 9)
    assert (raw.value, raw.result) == (60.0, raw.results["auto"])
    assert messages == ["raw (1 of 2)", "all (2 of 2)"]
    body = json.loads(json.dumps(whole.to_json(), allow_nan=False))
    assert body["results"]["20"]["value"] == 0.25
    assert (body["blocks"], body["width"], body["bytes_per_row"]) == (["embedding", "kl"], 9, 36)
    assert (body["rows_per_second"], body["combination"]["blocks"]) == (None, None)


def test_a_control_is_called_so_in_a_printed_table():
    row = entry_of(Candidate("layers, white", "control", Combination(("embedding",))), *fitted())
    assert row.title == "control: layers, white"
    assert entry_of(Candidate("x", "paper", Combination(("embedding",))), *fitted()).title == "x"


def fitted():
    return Combination(("embedding",)).fit(some_blocks(4, 0)), Costs(INFO), {}
