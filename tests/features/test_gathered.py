"""Blocks of rows, batch after batch: hand-worked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.errors import RowFailure, SampleError, TooManyFailures
from sporeprint.features.batches import Batch
from sporeprint.features.failures import Failures
from sporeprint.features.gathered import Gathered


class Lengths(Inputs):
    """Samples are lengths, of which the backbone sees four."""

    def truncates(self, ready: int) -> bool:
        return ready > 4

    def limits(self) -> dict[str, Any]:
        return {"max_length": 4}


FIRST = Batch([("a", 3), ("b", 9), ("c", 5)], ["a", "row 1", "c"])
SECOND = Batch([("d", 7), ("e", 1)], ["d", "e"])


def block(*values: float) -> dict[str, Any]:
    return {"embedding": np.array([values], dtype=np.float32).T}


def test_rows_lie_where_they_were_and_the_others_are_nan() -> None:
    failures = Failures(0.5, 5)
    gathered = Gathered(Lengths(), failures)
    gathered.add(FIRST, [0, 1], block(1, 2), [RowFailure("c", "torn")])
    gathered.add(SECOND, [1], block(3), [RowFailure("d", "gone")])
    assert (gathered.seen, gathered.positions, gathered.ids) == (5, [0, 1, 4], ["a", "b", "e"])
    assert gathered.truncated == ["row 1"]
    np.testing.assert_array_equal(gathered.computed()["embedding"].ravel(), [1, 2, 3])
    np.testing.assert_array_equal(gathered.blocks()["embedding"].ravel(), [1, 2, np.nan, np.nan, 3])
    with (
        pytest.warns(UserWarning, match=r"1 of 5 rows are too long and were cut \(max_length 4\): row 1"),
        pytest.warns(UserWarning, match="2 of 5 rows are NaN: c: torn; d: gone"),
    ):
        gathered.warn()


def test_a_batch_is_complete_before_its_failures_are_refused() -> None:
    gathered = Gathered(Lengths(), Failures(0, 5))
    with pytest.raises(TooManyFailures, match="1 of 5 rows cannot be read; at most 0 may fail"):
        gathered.add(FIRST, [0, 1], block(1, 2), [RowFailure("c", "torn")])
    assert (gathered.seen, gathered.truncated) == (3, ["row 1"])
    np.testing.assert_array_equal(gathered.computed()["embedding"].ravel(), [1, 2])


def test_without_features_nothing_is_computed_and_the_reasons_are_said() -> None:
    gathered = Gathered(Lengths(), Failures(1.0, 2))
    gathered.add(SECOND, [], {}, [RowFailure("d", "gone"), RowFailure("e", "torn")])
    assert gathered.computed() == {}
    with pytest.raises(SampleError, match=r"none of 2 rows has features.*: d: gone; e: torn"):
        gathered.blocks()
