import numpy as np
import pytest

from sporeprint.errors import SampleError
from sporeprint.predictors.groups import group_codes, groups_of


def rows_of(groups):
    return [part.tolist() for part in groups_of(groups, len(groups))]


def test_rows_of_one_name_are_one_group():
    assert rows_of(["b", "a", "b"]) == [[1], [0, 2]]
    assert rows_of(np.array([7, 7, 3])) == [[2], [0, 1]]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_group_is_a_group_of_its_own(missing):
    assert rows_of(["a", missing, "a", missing]) == [[0, 2], [1], [3]]
    assert rows_of([1.0, missing, 1.0, missing]) == [[0, 2], [1], [3]]
    assert group_codes([missing, missing], 2).tolist() == [0, 1]


def test_a_number_and_the_text_of_it_are_two_groups():
    assert rows_of([1, "1", 1, "a"]) == [[0, 2], [1], [3]]
    assert rows_of(["1", 1, None, "1"]) == [[1], [0, 3], [2]]


def test_no_groups_are_one_a_row():
    assert [part.tolist() for part in groups_of(None, 2)] == [[0], [1]]


@pytest.mark.parametrize(
    ("groups", "complaint"),
    [
        ([1, 1], "all 2 rows are of one group, '1'"),
        ([1], r"groups have shape \(1,\) for 2 rows"),
        ([[1], [2]], "groups hold lists; expected one text or number a row"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, complaint):
    with pytest.raises(SampleError, match=complaint):
        groups_of(groups, 2)
