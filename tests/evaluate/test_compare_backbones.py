import json
from dataclasses import replace

import numpy as np
import pytest

from small_blocks import INFO, classed_blocks
from sporeprint.cli.print_backbones import print_backbones
from sporeprint.errors import SampleError
from sporeprint.evaluate.compare import compare
from sporeprint.evaluate.compare_backbones import BackboneRows, compare_backbones

pytestmark = pytest.mark.usefixtures("few_penalties")
NAMES = ("embedding", "cls-1")


def backbone(name, strength=1.0, seed=0, rows=60, test_rows=45, layers=1.0, slow=False):
    """A backbone whose embedding tells classes apart so well."""
    apart = {"embedding": strength, "cls-1": layers}
    train, labels = classed_blocks(rows, seed=seed, names=NAMES, **apart)
    test, test_labels = classed_blocks(test_rows, seed=seed + 50, names=NAMES, **apart)
    ids, test_ids = [f"a{at}" for at in range(rows)], [f"b{at}" for at in range(test_rows)]
    return BackboneRows(
        name, train, labels, ids, test, test_labels, test_ids, INFO, {"whole": 2.0}, 20 if slow else 200
    )


def shuffled(rows, seed=3):
    """The same rows in another order."""
    rng = np.random.default_rng(seed)
    one, other = rng.permutation(len(rows.ids)), rng.permutation(len(rows.test_ids))
    return replace(
        rows,
        train={name: block[one] for name, block in rows.train.items()},
        labels=rows.labels[one],
        ids=[rows.ids[at] for at in one],
        test={name: block[other] for name, block in rows.test.items()},
        test_labels=rows.test_labels[other],
        test_ids=[rows.test_ids[at] for at in other],
    )


def test_each_backbone_chooses_as_by_itself_and_the_best_is_taken():
    weak, strong = backbone("weak", 0.3, layers=0.3), backbone("strong", 2.0, seed=1, slow=True)
    result = compare_backbones([weak, strong])
    assert (result.chosen, result.reference) == ("strong", "strong")
    for rows in (weak, strong):
        alone = compare(rows.train, rows.labels, rows.test, rows.test_labels, INFO)
        entry = result.backbone(rows.name)
        assert entry.base.combination == alone.entry(alone.reference).combination
        assert entry.base.value == alone.base.value
        assert entry.choice.combination == alone.entry(alone.chosen).combination
        assert entry.choice.value == alone.best.value
    assert result.backbone("strong").choice.rows_per_second == 10.0
    assert result.backbone("weak").choice.rows_per_second == 100.0
    assert result.comparison.best.value == result.backbone("strong").choice.value
    assert result.verdict.startswith("Use strong: ")
    assert len(result.verdict.split()) <= 25


def test_one_reference_and_paired_intervals():
    good, best = backbone("good", 0.8), backbone("best", 0.8, seed=1, layers=3.0)
    result = compare_backbones([good, best])
    reference = result.backbone(result.reference).base
    assert reference.gain.value == 0.0
    assert result.chosen == "best"
    own, other = result.backbone("best"), result.backbone("good")
    assert (own.behind.value, own.behind.low) == (0.0, 0.0)
    assert other.behind.value == pytest.approx(own.choice.value.value - other.choice.value.value)
    assert own.choice.gain.value == pytest.approx(own.choice.value.value - reference.value.value)
    assert other.choice.gain.value == pytest.approx(other.choice.value.value - reference.value.value)
    assert other.behind.low < other.behind.value < other.behind.high


def test_rows_are_joined_by_id_whatever_their_order():
    first, second = backbone("first", 0.7), backbone("second", 1.2, seed=1)
    expected, result = compare_backbones([first, second]), compare_backbones([first, shuffled(second)])
    assert [entry.choice.value for entry in result.backbones] == [entry.choice.value for entry in expected.backbones]
    assert [entry.behind for entry in result.backbones] == [entry.behind for entry in expected.backbones]


def test_rows_that_one_lacks_are_left_out_and_counted():
    first, second = backbone("first"), backbone("second", seed=1)
    short, half = first_rows(second, 50), first_rows(first, 50)
    result = compare_backbones([first, short])
    assert result.settings["train_rows"] == 50
    assert "left out, since a backbone lacks them: 10 training rows of first" in result.notes
    alike = compare_backbones([half, short])
    assert [entry.choice.value for entry in alike.backbones] == [entry.choice.value for entry in result.backbones]


def first_rows(rows, count):
    train = {name: block[:count] for name, block in rows.train.items()}
    return replace(rows, train=train, labels=rows.labels[:count], ids=rows.ids[:count])


def test_where_nothing_is_surely_better_the_reference_stays():
    rng = np.random.default_rng(0)
    noise = [
        replace(
            backbone(name),
            train={"embedding": rng.standard_normal((60, 6)).astype(np.float32)},
            test={"embedding": rng.standard_normal((45, 6)).astype(np.float32)},
        )
        for name in ("one", "two")
    ]
    result = compare_backbones(noise)
    if result.chosen == result.reference:
        assert result.backbone(result.chosen).choice.combination == result.backbone(result.chosen).base.combination
    assert len(result.verdict.split()) <= 25


def stars(result, capsys, monkeypatch):
    """The cells with a star in the printed table, by backbone and column."""
    monkeypatch.setenv("COLUMNS", "300")
    print_backbones(result)
    lines = capsys.readouterr().out.splitlines()
    rows = {entry.name: next(line for line in lines if line.startswith(entry.name)) for entry in result.backbones}
    return {name: [cell for cell in row.split()[1:3] if "*" in cell] for name, row in rows.items() if "*" in row}


def test_the_star_stands_at_the_choice_that_the_verdict_says_to_use(capsys, monkeypatch):
    result = compare_backbones([backbone("good", 0.8), backbone("best", 0.8, seed=1, layers=3.0)])
    assert result.verdict.startswith("Use best: ")
    assert (result.used, result.advised) == ("choice", result.backbone("best").choice)
    assert stars(result, capsys, monkeypatch) == {"best": [f"*{100 * result.advised.value.value:.1f}"]}


def test_where_the_choice_is_no_better_here_the_star_stands_at_the_embedding(capsys, monkeypatch):
    good, fooled = backbone("good", 1.5, layers=0.0), backbone("fooled", 0.8, seed=1, layers=3.0)
    noise = np.random.default_rng(0).standard_normal((45, 6)).astype(np.float32)
    result = compare_backbones([good, replace(fooled, test={**fooled.test, "cls-1": noise})])
    assert result.verdict.startswith("Use good: the embedding with LDA, ")
    assert "the training rows' choice, with fooled, is no better" in result.verdict
    base = result.backbone("good").base
    assert (result.chosen, result.used, result.advised) == ("good", "base", base)
    assert result.comparison.base.value == base.value
    assert stars(result, capsys, monkeypatch) == {"good": [f"*[{100 * base.value.value:.1f}]"]}
    other = result.backbone("fooled")
    assert other.behind.value == pytest.approx(base.value.value - other.choice.value.value)


def test_groups_go_with_their_rows():
    first, second = backbone("first", 0.7), backbone("second", 0.7, seed=1)
    groups, test_groups = ({row: int(row[1:]) // 5 for row in ids} for ids in (first.ids, first.test_ids))
    result = compare_backbones([first, shuffled(second)], groups, test_groups)
    plain = compare_backbones([first, second])
    assert result.backbones[0].choice.value.low != plain.backbones[0].choice.value.low


def test_it_is_json():
    result = compare_backbones([backbone("first"), backbone("second", seed=1)])
    body = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert [entry["name"] for entry in body["backbones"]] == ["first", "second"]
    assert body["chosen"] == result.chosen


def labelled_otherwise(rows):
    labels = rows.labels.copy()
    labels[7] = 2
    return replace(rows, labels=labels)


@pytest.mark.parametrize(
    ("others", "complaint"),
    [
        (lambda rows: [], "backbones are first; expected two or more"),
        (lambda rows: [replace(rows, name="first")], "backbones are first, first; expected two or more"),
        (lambda rows: [labelled_otherwise(rows)], "training row 'a7' is labelled 1 with first, 2 with second"),
        (
            lambda rows: [replace(rows, ids=[f"c{row}" for row in rows.ids])],
            "no training row of first is one of second",
        ),
        (lambda rows: [replace(rows, test_ids=["b0"] * 45)], "the test rows of second have an id twice"),
    ],
)
def test_rows_that_do_not_go_together_are_refused(others, complaint):
    first = backbone("first")
    with pytest.raises(SampleError, match=complaint):
        compare_backbones([first, *others(backbone("second", seed=1))])


def test_groups_are_of_the_rows_that_choose_where_these_are_fewer():
    rows = [backbone("first", 0.7), backbone("second", 1.2, seed=1)]
    groups = {row: at // 2 for at, row in enumerate(rows[0].ids)}
    result = compare_backbones(rows, groups=groups, most_rows=30)
    assert result.settings["rows that choose"] == 30
    alone = compare(
        rows[1].train, rows[1].labels, rows[1].test, rows[1].test_labels, INFO, groups=np.arange(60) // 2, most_rows=30
    )
    assert result.backbone("second").choice.value == alone.best.value
