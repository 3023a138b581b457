"""The one counter of rows that cannot be read."""

from __future__ import annotations

import pytest

from sporeprint.errors import RowFailure, TooManyFailures
from sporeprint.features.failures import Failures, first_reasons


def torn(count: int) -> list[RowFailure]:
    return [RowFailure(f"r{number}", "torn") for number in range(count)]


@pytest.mark.parametrize(
    ("limit", "total", "allowed"),
    [(0.01, 1000, 10), (0.01, 199, 1), (0.01, 5, 1), (0.0, 1000, 0), (0.3, 10, 3), (0.39, 20, 7), (1.0, 4, 4)],
)
def test_the_allowance_is_a_fraction_and_one_row_unless_it_is_nothing(limit: float, total: int, allowed: int) -> None:
    failures = Failures(limit, total)
    assert failures.allowed == allowed
    failures.extend(torn(allowed))
    with pytest.raises(
        TooManyFailures, match=f"{allowed + 1} of {total} rows cannot be read; at most {allowed} may fail "
    ) as caught:
        failures.add("last", ValueError("cut short"))
    assert caught.value.failures == failures.rows == [*torn(allowed), RowFailure("last", "cut short")]


def test_a_batch_is_counted_whole_before_it_is_refused() -> None:
    failures = Failures(0.5, 4)
    failures.add("first", "gone")
    with pytest.raises(TooManyFailures, match="4 of 4 rows cannot be read; at most 2 may fail") as caught:
        failures.extend(torn(3))
    assert [row.id for row in caught.value.failures] == ["first", "r0", "r1", "r2"]


def test_the_message_gives_five_reasons_and_the_error_all_rows() -> None:
    with pytest.raises(TooManyFailures) as caught:
        Failures(0, 9).extend(torn(7))
    assert "may fail (r0: torn; r1: torn; r2: torn; r3: torn; r4: torn; and 2 more). " in str(caught.value)
    assert "--max-failures" in str(caught.value)
    assert len(caught.value.failures) == 7


def test_failures_known_before_count_at_the_next_one_and_stay_as_they_are() -> None:
    known = torn(2)
    failures = Failures(0.01, 10, known)
    assert failures.rows == known
    with pytest.raises(TooManyFailures, match="3 of 10 rows cannot be read; at most 1 may fail"):
        failures.add("new", "gone")
    assert known == torn(2)


def test_what_the_error_names_does_not_grow_later() -> None:
    failures = Failures(0, 3)
    with pytest.raises(TooManyFailures) as caught:
        failures.add("a", "gone")
    with pytest.raises(TooManyFailures):
        failures.add("b", "gone")
    assert [row.id for row in caught.value.failures] == ["a"]


def test_reasons_are_listed_up_to_a_number() -> None:
    assert first_reasons(torn(4), 2) == "r0: torn; r1: torn; and 2 more"
    assert first_reasons(torn(2), 2) == "r0: torn; r1: torn"
    assert first_reasons([], 3) == ""
