from collections import Counter

import numpy as np
import pytest

from small_blocks import INFO, classed_blocks
from sporeprint.errors import SampleError
from sporeprint.evaluate.choice import trained as choices_of_training
from sporeprint.evaluate.choice.candidates import FREE
from sporeprint.evaluate.compare import compare
from sporeprint.predictors.knn import KNN
from sporeprint.predictors.lda import ShrunkLDA

pytestmark = pytest.mark.usefixtures("few_penalties")
NAMES = ("embedding", "cls-1", "kl")


def few(rows=60, test_rows=45, shots=4, draws=3, **words):
    train, labels = classed_blocks(rows, names=NAMES, embedding=0.6)
    test, test_labels = classed_blocks(test_rows, seed=1, names=NAMES, embedding=0.6)
    return compare(train, labels, test, test_labels, INFO, shots=shots, draws=draws, **words)


def test_a_draw_of_every_row_is_the_whole_comparison():
    train, labels = classed_blocks(36, names=NAMES)
    test, test_labels = classed_blocks(30, seed=1, names=NAMES)
    whole = compare(train, labels, test, test_labels, INFO)
    drawn = compare(train, labels, test, test_labels, INFO, shots=12, draws=1)
    assert drawn.reference == whole.reference
    assert drawn.chosen == whole.chosen
    for entry, expected in zip(drawn.entries, whole.entries, strict=True):
        assert entry.combination == expected.combination
        assert entry.judge == expected.judge
        for judge, accuracy in expected.results.items():
            assert entry.results[judge].value == accuracy.value
            assert entry.results[judge].gain == accuracy.gain


def test_labels_that_no_draw_has_change_nothing():
    train, labels = classed_blocks(60, names=NAMES)
    test, test_labels = classed_blocks(30, seed=1, names=NAMES)
    seen = []

    def spy(blocks, given, *words, **others):
        seen.append([row for row, label in enumerate(given) if label is not None])
        return original(blocks, given, *words, **others)

    original = choices_of_training.leave_one_out_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choices_of_training, "leave_one_out_of", spy)
        compare(train, labels, test, test_labels, INFO, shots=3, draws=2)
    drawn = {tuple(rows) for rows in seen}
    assert len(drawn) == 2
    for rows in drawn:
        assert Counter(labels[list(rows)].tolist()) == {0: 3, 1: 3, 2: 3}


def test_figures_are_means_over_draws_of_predictors_fitted_on_the_drawn_rows(monkeypatch):
    train, labels = classed_blocks(60, names=NAMES)
    test, test_labels = classed_blocks(45, seed=1, names=NAMES)
    chosen = [np.arange(12), np.arange(30, 42)]
    monkeypatch.setattr("sporeprint.evaluate.few_shot_comparison.rows_of_draws", lambda *_: iter(chosen))
    monkeypatch.setattr("sporeprint.evaluate.few_shot_comparison.content_order", lambda rows, _: np.arange(len(rows)))
    result = compare(train, labels, test, test_labels, INFO, shots=4, draws=2)
    raw = result.entry("embedding")
    assert raw.results["closed"].predictor == "LDA"
    plain = [
        (ShrunkLDA().fit(train["embedding"][draw], labels[draw]).predict(test["embedding"]) == test_labels).mean()
        for draw in chosen
    ]
    assert result.base.value.value == pytest.approx(np.mean(plain))
    combiner = result.entry("embedding, white").combination.fit(train)  # whitening sees all rows
    rows, others = combiner.transform(train), combiner.transform(test)
    white = [(KNN().fit(rows[draw], labels[draw]).predict(others) == test_labels).mean() for draw in chosen]
    assert result.entry("embedding, white").results["knn"].value.value == pytest.approx(np.mean(white))


def test_the_verdict_says_how_few_and_the_notes_what_each_draw_chose():
    result = few(shots=4, draws=3)
    assert result.verdict.startswith("4 labels a class: ")
    assert len(result.verdict.split()) <= 25
    assert (result.settings["shots"], result.settings["draws"]) == (4, 3)
    assert any("of 3)" in note for note in result.notes)
    gains = next(note for note in result.notes if note.startswith("gain in each draw: "))
    assert gains.count("+") + gains.count("-") >= 3


def test_the_reference_is_one_for_all_draws_and_its_gain_is_nothing():
    result = few(draws=4)
    assert result.base.gain.value == 0.0
    assert result.best is result.entry(result.chosen).result
    assert result.free == FREE


def test_the_order_of_rows_changes_nothing():
    train, labels = classed_blocks(60, names=NAMES)
    test, test_labels = classed_blocks(45, seed=1, names=NAMES)
    order = np.random.default_rng(3).permutation(60)
    first = compare(train, labels, test, test_labels, INFO, shots=3, draws=2)
    again = compare(
        {name: block[order] for name, block in train.items()}, labels[order], test, test_labels, INFO, shots=3, draws=2
    )
    assert [entry.value.value for entry in first.entries] == [entry.value.value for entry in again.entries]


def test_groups_are_those_of_the_drawn_rows():
    result = few(rows=60, shots=4, draws=2, groups=np.arange(60) // 3, test_groups=np.arange(45) // 5)
    plain = few(rows=60, shots=4, draws=2)
    assert result.base.value.low != plain.base.value.low


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"shots": 21}, "shots=21, where the largest class has 20 labelled rows; expected at most 20"),
        ({"shots": 0}, "shots=0"),
        ({"draws": 0}, "draws=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_numbers_that_cannot_be_are_refused(words, complaint):
    with pytest.raises(SampleError, match=complaint):
        few(**words)


def test_few_shots_need_test_rows():
    train, labels = classed_blocks(30, names=NAMES)
    with pytest.raises(SampleError, match="shots=2 without test rows"):
        compare(train, labels, None, None, INFO, shots=2)


def test_a_draw_of_one_group_leaves_out_its_rows_one_by_one(monkeypatch):
    path = "sporeprint.evaluate.few_shot_comparison."
    monkeypatch.setattr(path + "rows_of_draws", lambda *_: iter([np.arange(6), np.arange(9, 15)]))
    monkeypatch.setattr(path + "content_order", lambda rows, _: np.arange(len(rows)))
    result = few(shots=2, draws=2, groups=np.arange(60) // 30)
    plain = few(shots=2, draws=2)
    assert [entry.results for entry in result.entries] == [entry.results for entry in plain.entries]
    assert "2 of 2 draws are of one group: their rows are left out one by one" in result.notes
    assert not any("one by one" in note for note in plain.notes)
