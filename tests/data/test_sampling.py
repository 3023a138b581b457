from __future__ import annotations

import numpy as np
import pytest

from sporeprint.data.rows import ListSource
from sporeprint.data.sampling import Sampled
from sporeprint.errors import SourceError


def source(rows: int = 200) -> ListSource:
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    return ListSource([pixels] * rows, ids=[str(at) for at in range(rows)], labels=[at // 20 for at in range(rows)])


def test_a_sample_of_a_source_sorted_by_class_holds_nearly_every_class():
    assert len({row.label for row in Sampled(source(), 50).rows()}) >= 9  # of ten; the first 50 rows hold three


def test_rows_keep_their_order_and_start_skips():
    ids = [int(row.id) for row in Sampled(source(), 50).rows()]
    assert len(ids) == 50
    assert ids == sorted(set(ids))
    assert [int(row.id) for row in Sampled(source(), 50).rows(start=17)] == ids[17:]
    assert list(Sampled(source(), 50).rows(start=50)) == []


def test_the_draw_depends_on_the_seed_and_shows_in_the_digest():
    first, other = Sampled(source(), 50), Sampled(source(), 50, seed=1)
    assert [row.id for row in first.rows()] != [row.id for row in other.rows()]
    assert first.digest() == Sampled(source(), 50).digest()
    assert len({first.digest(), other.digest(), Sampled(source(), 51).digest(), source().digest()}) == 4
    assert first.describe()["sample"] == 50


def test_a_smaller_sample_is_part_of_a_larger_one():
    small, large = ({row.id for row in Sampled(source(), count).rows()} for count in (20, 50))
    assert small < large


def test_more_rows_than_there_are_gives_all_and_none_is_refused():
    assert len(Sampled(source(30), 50)) == 30
    with pytest.raises(SourceError, match="at least 1"):
        Sampled(source(), 0)
