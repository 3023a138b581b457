import json
import math

import numpy as np
import pytest

from sporeprint.errors import SampleError
from sporeprint.evaluate.analyse import ClassChange, analyse, per_class_change
from sporeprint.evaluate.similarity import anisotropy, cka, effective_rank


def blocks(rows=30):
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((rows, 6)).astype(np.float32)
    return {"embedding": embedding, "kl": embedding[:, :3] + rng.standard_normal((rows, 3)).astype(np.float32)}


LABELS = np.array(["cat", "cat", "bat", "bat", "bat", "bat", "emu", "ant"])
BEFORE = np.array(["cat", "bat", "bat", "cat", "cat", "bat", "emu", "bee"])
AFTER = np.array(["cat", "cat", "bat", "bat", "cat", "bat", "a long name", "bee"])


def test_classes_come_with_the_largest_gain_first():
    assert per_class_change(LABELS, BEFORE, AFTER) == [
        ClassChange("cat", 2, 0.5, 1.0, 0.5),
        ClassChange("bat", 4, 0.5, 0.75, 0.25),
        ClassChange("ant", 1, 0.0, 0.0, 0.0),
        ClassChange("emu", 1, 1.0, 0.0, -1.0),
    ]


def test_equal_changes_go_by_the_label():
    labels = np.array([3, 1, 2, 1, 2, 3])
    changes = per_class_change(labels, labels * 0, labels)
    assert [(change.label, change.change) for change in changes] == [(1, 1.0), (2, 1.0), (3, 1.0)]


def test_labels_of_classes_are_plain_json():
    changes = per_class_change(np.array([1, 2], np.int32), [1, 1], [1, 2])
    assert [type(change.label) for change in changes] == [int, int]


def test_an_analysis_holds_the_figures_of_every_block():
    given = blocks()
    analysis = analyse(given)
    assert (analysis.rows, analysis.used, analysis.classes) == (30, 30, ())
    assert list(analysis.blocks) == ["embedding", "kl"]
    for name, rows in given.items():
        block = analysis.blocks[name]
        assert (block.width, block.effective_rank, block.anisotropy) == (
            rows.shape[1],
            effective_rank(rows),
            anisotropy(rows),
        )
    assert analysis.cka[0][1] == analysis.cka[1][0] == cka(given["embedding"], given["kl"])
    assert analyse(given, LABELS, BEFORE, AFTER).classes == tuple(per_class_change(LABELS, BEFORE, AFTER))


def test_of_many_rows_the_same_are_drawn_of_every_block():
    rows = np.random.default_rng(0).standard_normal((200, 4))
    analysis = analyse({"a": rows, "b": 2 * rows}, most_rows=20)
    assert (analysis.rows, analysis.used) == (200, 20)
    assert analysis.cka[0][1] == pytest.approx(1.0)
    assert analysis.blocks["a"].effective_rank != effective_rank(rows)
    assert analysis == analyse({"a": rows, "b": 2 * rows}, most_rows=20)
    assert analysis != analyse({"a": rows, "b": 2 * rows}, most_rows=20, seed=1)


def test_no_row_is_drawn_twice():
    assert analyse({"a": np.eye(50)}, most_rows=49).blocks["a"].anisotropy == 0.0  # every two rows at right angles


def test_an_analysis_is_json_also_where_figures_are_missing():
    analysis = analyse({"embedding": blocks(1)["embedding"], "zeros": np.zeros((1, 2))}, LABELS, BEFORE, AFTER)
    assert math.isnan(analysis.blocks["zeros"].anisotropy)
    plain = json.loads(json.dumps(analysis.to_json(), allow_nan=False))
    assert plain["blocks"]["zeros"] == {"width": 2, "effective_rank": 0.0, "anisotropy": None}
    assert plain["cka"] == [[None, None], [None, None]]
    assert plain["classes"][0] == {"label": "cat", "count": 2, "before": 0.5, "after": 1.0, "change": 0.5}


def test_an_analysis_is_printed_as_aligned_tables():
    square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    text = str(analyse({"embedding": square, "flat": np.ones((4, 3))}, LABELS, BEFORE, AFTER))
    assert text.splitlines() == [
        "block      width  effective rank  anisotropy  CKA embedding  CKA flat",
        "embedding      2             2.0      -0.333           1.00       nan",
        "flat           3             0.0       1.000            nan       nan",
        "4 of 4 rows",
        "",
        "class  rows  before   after  points",
        "cat       2   50.0%  100.0%   +50.0",
        "bat       4   50.0%   75.0%   +25.0",
        "ant       1    0.0%    0.0%    +0.0",
        "emu       1  100.0%    0.0%  -100.0",
        "4 of 4 classes",
    ]


def test_of_many_classes_the_ends_are_printed():
    labels = np.repeat(np.arange(12), 12)
    after = np.where(np.tile(np.arange(12), 12) < labels, labels, -1)  # class c is right in c of 12
    lines = str(analyse(blocks(), labels, labels * 0 - 1, after)).splitlines()
    shown = lines[lines.index("") + 2 :]
    assert [line.split()[0] for line in shown] == ["11", "10", "9", "8", "7", "4", "3", "2", "1", "0", "10"]
    assert shown[-1] == "10 of 12 classes"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"blocks": {}}, "no blocks"),
        ({"blocks": {"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, "most_rows": 2}, "different numbers of rows"),
        ({"blocks": {"a": [[np.nan]]}}, "1 of 1 block 'a' rows are NaN"),
        ({"labels": LABELS, "before": BEFORE}, "expected all three, or none"),
        ({"labels": LABELS, "before": BEFORE, "after": AFTER[:3]}, r"later predictions have shape \(3,\) for 8 labels"),
        ({"labels": LABELS, "before": range(8), "after": AFTER}, "labels are strings, earlier predictions are not"),
        ({"labels": [1.0, np.nan], "before": [1, 1], "after": [1, 1]}, "1 of 2 test labels are NaN"),
        ({"labels": [], "before": [], "after": []}, "at least one row"),
        ({"most_rows": 0}, "most_rows=0"),
    ],
)
def test_what_cannot_be_analysed_is_said(arguments, complaint):
    with pytest.raises(SampleError, match=complaint):
        analyse(**{"blocks": blocks(), **arguments})
