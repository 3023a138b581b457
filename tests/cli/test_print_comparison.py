"""What `compare` prints: the answer first, three judges, in 80 columns and in 60."""

from dataclasses import replace

import pytest

from small_comparison import comparison, entry
from sporeprint.cli.print_comparison import print_comparison
from sporeprint.evaluate.choice.candidates import ALL, FREE, PLAIN, RAW
from sporeprint.features.combine import Combination

VERDICT = "Use layers with LDA: 92.2% where the embedding's best is 86.8% (+5.4, +3.1 to +7.9); one pass."
VIEWS = ("embedding", "dino.views")
SETTINGS = {"backbone": "MiniLM", "train_rows": 1000, "test_rows": 500, "classes": 6, "seed": 0}


def over(row, base=0.868):
    """The entry with gains over this accuracy."""
    results = {
        judge: replace(result, gain=replace(result.gain, value=gain, low=gain - 0.023, high=gain + 0.025))
        for judge, result in row.results.items()
        for gain in [result.value.value - base]
    }
    return replace(row, results=results)


def shown(**others):
    rows = [
        entry(RAW, "embedding", 1, 0.868),
        *(entry(f"cls-{at}, white", "control", 1, 0.85 - 0.01 * at, blocks=(f"cls-{at}",)) for at in range(4)),
        entry("kl alone", "block", 1, 0.5, predictor="class means", blocks=("kl",)),
        entry("paper", "paper", 62, 0.65, note="62 passes instead of 111", blocks=("embedding", "kl")),
        entry(FREE, "chosen", 1, 0.922, features="layers", blocks=("cls-1",)),
        entry(
            PLAIN, "control", 62, 0.926, predictor="ridge", features="embedding + views", combination=Combination(VIEWS)
        ),
        entry(ALL, "chosen", 62, 0.931, features="embedding + kl, white 0.5", blocks=("embedding", "kl")),
    ]
    whole = comparison(entries=tuple(map(over, rows)), verdict=VERDICT, reference=RAW, free=FREE, chosen=FREE)
    return replace(whole, **{"settings": SETTINGS, **others})


def printed(capsys, monkeypatch, columns, everything=False, whole=None):
    monkeypatch.setenv("COLUMNS", str(columns))
    print_comparison(whole or shown(), everything)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    return out


def test_at_80_columns_the_answer_comes_first_and_the_table_is_one(capsys, monkeypatch):
    assert (
        printed(capsys, monkeypatch, 80)
        == """\
Use layers with LDA: 92.2% where the embedding's best is 86.8% (+5.4, +3.1 to
+7.9); one pass.

Compared: MiniLM, 1,000 training rows, 500 test rows, 6 classes
features                passes   kNN   closed form  probe   gain    95% interval
--------------------------------------------------------------------------------
embedding (reference)        1  78.8  [86.8] LDA     84.8
cls-0, white                 1  77.0   *85.0 LDA        -   -1.8    -4.1 to +0.7
kl alone                     1  42.0   *50.0 means      -  -36.8  -39.1 to -34.3
paper                       62  57.0   *65.0 LDA        -  -21.8  -24.1 to -19.3
chosen, one pass (the        1  84.2   *92.2 LDA     90.2   +5.4    +3.1 to +7.9
  choice)
chosen, no gradients        62  84.6   *92.6 ridge      -   +5.8    +3.5 to +8.3
chosen, all passes          62  85.1   *93.1 LDA     91.1   +6.3    +4.0 to +8.8
3 more rows and 7 more columns: --all
passes: backbone passes a row; kNN, closed form, probe: top-1 % on the test rows
by each; closed form: the LDA, ridge or class means that leave-one-out chooses;
probe: logistic, trained by gradients; gain: points of * over [ ] on the same
test rows; white: each block whitened by itself as --whiten auto does, in full
or with the exponent given; paper: the embedding and all gradients, as they are;
LDA: linear discriminant analysis, its covariance shrunk; ridge: ridge
regression on the classes; means: the nearest class mean; *: the predictor that
leave-one-out chooses in the row; [ ]: the reference; -: not run.
paper: 62 passes instead of 111
chosen, one pass: layers with LDA
chosen, no gradients: embedding + views with ridge
chosen, all passes: embedding + kl, white 0.5, with LDA

added points                        passes   kNN  closed form  probe
--------------------------------------------------------------------
one pass, over the embedding        1 to 1  +5.4         +5.4   +5.4
more passes, over one pass         1 to 62  +0.9         +0.9   +0.9
gradients, over the best without  62 to 62  +0.5         +0.5      -
note: Two rows are in both stores.
"""
    )


def test_at_60_columns_the_judges_stay_together_and_the_gains_follow(capsys, monkeypatch):
    lines = printed(capsys, monkeypatch, 60).splitlines()
    assert lines[5:9] == [
        "features                   passes   kNN   closed form  probe",
        "-" * 60,
        "embedding (reference)           1  78.8  [86.8] LDA     84.8",
        "cls-0, white                    1  77.0   *85.0 LDA        -",
    ]
    gains = lines.index("features                        gain    95% interval")
    assert lines[gains + 2 : gains + 4] == [
        "embedding (reference)",
        "cls-0, white                    -1.8    -4.1 to +0.7",
    ]


def test_all_adds_rows_columns_and_settings(capsys, monkeypatch):
    lines = printed(capsys, monkeypatch, 300, everything=True).splitlines()
    assert lines[2] == "Compared: backbone MiniLM, train rows 1000, test rows 500, classes 6, seed 0"
    heads = (
        "passes kNN closed form probe gain 95% interval top-1 interval % class % leave-one-out % loss k rows/s bytes"
    )
    assert lines[3].split() == ["features", *heads.split()]
    (row,) = [line for line in lines if line.startswith("cls-1, white")]
    figures = "1 76.0 *84.0 LDA - -2.8 -5.1 to -0.3 82.0 to 87.0 79.0 83.0 0.160 5 1,240.0 1,536"
    assert row.split() == ["cls-1,", "white", *figures.split()]
    assert not any("--all" in line and "more" in line for line in lines)


def test_a_reference_that_is_a_probe_is_marked_there_and_has_no_gain(capsys, monkeypatch):
    whole = shown()
    first, *others = whole.entries
    lines = printed(capsys, monkeypatch, 80, whole=replace(whole, entries=(replace(first, judge="probe"), *others)))
    (row,) = [line for line in lines.splitlines() if line.startswith("embedding (reference)")]
    assert row.split() == ["embedding", "(reference)", "1", "78.8", "86.8", "LDA", "[84.8]"]


@pytest.mark.parametrize("columns", [80, 60])
def test_without_probes_there_is_no_column_for_them(capsys, monkeypatch, columns):
    bare = [replace(row, results={judge: row.results[judge] for judge in ("knn", "closed")}) for row in shown().entries]
    out = printed(capsys, monkeypatch, columns, whole=shown(entries=tuple(bare)))
    assert "probe" not in out
    assert "closed form" in out


def test_the_reference_and_the_choice_may_be_one_row(capsys, monkeypatch):
    entries = shown().entries[:5]
    out = printed(capsys, monkeypatch, 100, whole=shown(entries=entries, free=RAW, chosen=RAW))
    assert "\nembedding (reference and choice) " in out
    assert "added points" not in out


def alike(*names):
    """The comparison in which these choices are the same features with the same predictor."""
    rows = {row.name: row for row in shown().entries}
    same = {name: replace(rows[FREE], name=name, role=rows[name].role) for name in names}
    return shown(entries=tuple({**rows, **same}.values()))


@pytest.mark.parametrize(
    ("names", "title"),
    [
        ((ALL,), "chosen, one pass and all passes"),
        ((PLAIN, ALL), "chosen, one pass, no gradients and all passes"),
    ],
)
@pytest.mark.parametrize("everything", [False, True])
def test_choices_that_are_one_and_the_same_are_one_row(capsys, monkeypatch, names, title, everything):
    lines = printed(capsys, monkeypatch, 300, everything, alike(*names)).splitlines()
    rows = [line for line in lines if line.startswith("chosen") and ":" not in line]
    assert len(rows) == 3 - len(names)
    assert rows[0].startswith(f"{title} (the choice)  ")
    assert f"{title}: layers with LDA" in lines


def test_choices_whose_figures_differ_as_those_of_splits_do_keep_their_rows(capsys, monkeypatch):
    *others, last = alike(ALL).entries
    moved = replace(last, results={**last.results, "closed": replace(last.result, value=others[0].value)})
    out = printed(capsys, monkeypatch, 300, whole=shown(entries=(*others, moved)))
    assert "\nchosen, one pass (the choice)  " in out
    assert "\nchosen, all passes  " in out


def test_predictors_that_no_row_has_are_not_explained(capsys, monkeypatch):
    out = printed(capsys, monkeypatch, 300, whole=shown(entries=shown().entries[:1]))
    assert "LDA: linear" in out
    assert "ridge: " not in out
    assert "not run" not in out
