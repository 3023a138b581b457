import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sporeprint.errors import SampleError
from sporeprint.search import best_rows as candidates
from sporeprint.search.best_rows import best_candidates, check_row_count, slices


def chunks_of(scores, step):
    """The scores in chunks of one array that is overwritten, as `neighbours` gives them."""
    space = np.empty((len(scores), step), np.float32)
    for part in slices(scores.shape[1], step):
        chunk = space[:, : part.stop - part.start]
        chunk[:] = scores[:, part]
        yield part.start, chunk


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_the_greatest_scores_are_kept_and_of_equal_ones_the_first(seed):
    rng = np.random.default_rng(seed)
    queries, rows, keep = rng.integers(1, 9), int(rng.integers(1, 60)), int(rng.integers(1, 12))
    scores = rng.integers(-2, 3, (queries, rows)).astype(np.float32)
    scores[rng.random(scores.shape) < rng.choice([0, 0.5])] = rng.choice([np.nan, -np.inf])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "_KEYS", int(rng.integers(1, 200)))
        best, positions = best_candidates(chunks_of(scores, int(rng.integers(1, 70))), queries, keep)
    for at, row in enumerate(scores):
        expected = sorted((column for column in range(rows) if row[column] > -np.inf), key=lambda c: (-row[c], c))[
            :keep
        ]
        missing = keep - len(expected)
        assert positions[at].tolist() == expected + [-1] * missing
        assert best[at].tolist() == row[expected].tolist() + [-np.inf] * missing


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_keys_order_as_scores_and_give_them_back(scores):
    scores = np.array(scores, np.float32)
    keys = candidates._keys(scores, np.zeros(len(scores), int))
    assert (keys > 0).all()
    assert (candidates._score(keys) == scores).all()
    assert ((keys[:, None] < keys) == (scores[:, None] < scores)).all()


def test_more_rows_than_a_key_can_number_are_refused():
    check_row_count(2**32 - 1)
    with pytest.raises(SampleError, match="4294967296 rows; exact search takes fewer than 2\\^32"):
        check_row_count(2**32)
