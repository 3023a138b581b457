"""What a caller makes NumPy do with numbers that under- or overflow changes no answer."""

import inspect
import warnings

import numpy as np
import pytest

import sporeprint
from sporeprint import (
    BackboneRows,
    Combination,
    analyse,
    check_index,
    cluster,
    compare,
    compare_backbones,
    demonstrations,
    knn,
    multilabel,
    probe,
    regress,
    retrieve,
    revisited,
    select,
    with_unlabelled,
)
from sporeprint.data.floats import quiet_floats
from sporeprint.evaluate.choice.intervals import bootstrap_difference
from sporeprint.evaluate.segmentation import confusion, segmentation
from sporeprint.search.indexes import make_index
from sporeprint.segment.bank import MemoryBank
from sporeprint.segment.propagate import Propagator

pytestmark = pytest.mark.usefixtures("few_penalties")
COUNT, WIDTH = 40, 6
LABELS = np.arange(COUNT) % 3
SHARES = np.eye(3)[LABELS]
TEXTS = [f"text {number}" for number in range(COUNT)]
TRUTH = {
    "imlist": [f"i{number}" for number in range(COUNT)],
    "qimlist": ["q0", "q1"],
    "gnd": [{"easy": [0, 3], "hard": [6], "junk": [1]}, {"easy": [1], "hard": [4], "junk": []}],
}


def columns(*scales, dtype=np.float32):
    """Rows about three centres, whose first columns are scaled."""
    random = np.random.default_rng(0)
    rows = np.eye(WIDTH)[LABELS] + 0.3 * random.normal(size=(COUNT, WIDTH))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[:, -len(scales) :] *= scales
    return rows.astype(dtype)


ROWS = {
    "a tiny column": columns(1e-30),
    "a column of subnormal numbers": columns(1e-42),
    "a large column": columns(1e15),
    "tiny rows": columns(*[1e-20] * WIDTH),
    "a tiny and a huge column": columns(1e-200, 1e100, dtype=np.float64),
    "rows of tiny numbers": columns(*[1e-200] * WIDTH, dtype=np.float64),
}
INFO = {name: {"dim": WIDTH, "family": "test", "views": "test", "passes": 1} for name in ("embedding", "kl")}


def blocks(rows):
    return {"embedding": rows, "kl": np.ascontiguousarray(rows[:, ::-1])}


def of_backbone(name, rows):
    ids = [str(row) for row in range(COUNT)]
    return BackboneRows(name, blocks(rows), LABELS, ids, blocks(rows), LABELS, ids, INFO)


def float32(rows):
    with np.errstate(all="ignore"):
        return rows.astype(np.float32)


def searched(rows):
    return make_index("exact", float32(rows)).search(float32(rows), 3)


CALLS = {
    "knn": lambda rows: knn(rows, LABELS, rows[::-1], LABELS[::-1], k="auto"),
    "knn by cosine": lambda rows: knn(rows, LABELS, rows, LABELS, metric="cosine", vote="softmax", k=3),
    "knn by distance": lambda rows: knn(rows, LABELS, rows, LABELS, vote="distance", k=3, shots=2),
    "probe": lambda rows: probe(rows, LABELS, rows[::-1], LABELS[::-1], penalties=(1.0,)),
    "probe of standardised rows": lambda rows: probe(rows, LABELS, rows, LABELS, penalties=(1.0,), standardise=True),
    "cluster": lambda rows: cluster(rows, LABELS, starts=2),
    "retrieve": lambda rows: retrieve(rows, LABELS),
    "retrieve by cosine": lambda rows: retrieve(rows, LABELS, metric="cosine"),
    "revisited": lambda rows: revisited(rows[:2], rows, TRUTH),
    "regress": lambda rows: regress(rows, LABELS * 1e-30, rows, LABELS * 1e-30, k=3),
    "regress by ridge": lambda rows: regress(rows, LABELS * 1.5, rows, LABELS * 1.5, method="ridge"),
    "multilabel": lambda rows: multilabel(rows, SHARES.astype(int), rows, SHARES.astype(int), k=3),
    "multilabel by probe": lambda rows: multilabel(
        rows, SHARES.astype(int), rows, SHARES.astype(int), method="probe", penalties=(1.0,)
    ),
    "analyse": lambda rows: analyse(blocks(rows)),
    "demonstrations": lambda rows: demonstrations(rows, TEXTS, LABELS, rows[:4], TEXTS[:4], k=3),
    "compare": lambda rows: compare(blocks(rows), LABELS, blocks(rows), LABELS, INFO),
    "select": lambda rows: select(blocks(rows), LABELS),
    "compare_backbones": lambda rows: compare_backbones([of_backbone("a", rows), of_backbone("b", rows[:, ::-1])]),
    "with_unlabelled": lambda rows: with_unlabelled(rows[:20], LABELS[:20], rows[20:]),
    "Combination": lambda rows: Combination(whiten="auto").fit(blocks(rows)).transform(blocks(rows)),
    "Combination of a size": lambda rows: Combination(size=3).fit(blocks(rows)).transform(blocks(rows)),
    "check_index": lambda rows: check_index(make_index("exact", float32(rows)), float32(rows), float32(rows), k=3),
    "exact search": lambda rows: searched(rows),
    "a bank": lambda rows: MemoryBank.of(rows, SHARES).predict(rows, k=3),
    "a propagator": lambda rows: Propagator.of([(rows.reshape(5, 8, WIDTH), LABELS.reshape(5, 8))])(
        rows.reshape(5, 8, WIDTH), (10, 16)
    ),
    "segmentation": lambda rows: segmentation([confusion(LABELS.reshape(5, 8), LABELS.reshape(5, 8)[::-1], 9)]),
    "an interval": lambda rows: bootstrap_difference(rows[:, 0] > 0.5, rows[:, 1] > 0.5, LABELS),
}


def answer(call, rows):
    """What a call gives, as text to compare, or the error of ours."""
    try:
        value = call(rows)
    except sporeprint.errors.SporeprintError as error:
        return f"{type(error).__name__}: {error}"
    with np.printoptions(threshold=10**6, floatmode="unique"):
        return repr(value)


CHOOSING = ("compare", "compare_backbones")  # each computes much of what the others do
EXTREME = ("a column of subnormal numbers", "a tiny and a huge column")
CASES = [(call, rows) for call in CALLS for rows in (EXTREME if call in CHOOSING else ROWS)]


@pytest.mark.parametrize(("call", "rows"), CASES)
def test_numpy_that_raises_and_warnings_that_are_errors_change_no_answer(call, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = answer(CALLS[call], ROWS[rows])
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error", RuntimeWarning)
        assert answer(CALLS[call], ROWS[rows]) == expected


def test_every_public_function_of_arrays_is_among_the_calls():
    functions = {name for name in sporeprint.__all__ if inspect.isfunction(getattr(sporeprint, name))}
    of_no_arrays = {"open_source", "check_backbone", "check_objective", "check_projection", "check_views"}
    of_no_arrays |= {"load_pipeline", "prompt_head", "save_pipeline"}
    assert functions - of_no_arrays <= {call.split(" ")[0] for call in CALLS}


def test_a_quiet_function_leaves_the_callers_setting_and_its_own_signature():
    def divide(a, b=2):
        """Divide."""
        return np.float64(a) / b

    quiet = quiet_floats(divide)
    with np.errstate(all="raise"):
        assert quiet(1e-320, b=3) == 1e-320 / 3
        with pytest.raises(FloatingPointError):
            divide(1e-320, b=3)
    assert (quiet.__name__, quiet.__doc__, inspect.signature(quiet)) == ("divide", "Divide.", inspect.signature(divide))
