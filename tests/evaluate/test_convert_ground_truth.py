"""The script that makes JSON of the official pickles."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from sporeprint.evaluate.ground_truth import load_ground_truth

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import convert_ground_truth

TRUTH = {
    "imlist": ["a", "b", "c"],
    "qimlist": ["q"],
    "gnd": [{"easy": [1], "hard": [], "junk": [0, 2], "bbx": [1.5, 2.0, 3.0, 4.0]}],
}


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_a_pickle_of_lists_and_arrays_becomes_the_json_that_is_read(tmp_path: Path, protocol: int) -> None:
    arrays = {name: np.array(values) for name, values in TRUTH["gnd"][0].items()}  # type: ignore[attr-defined]
    (tmp_path / "gnd.pkl").write_bytes(
        pickle.dumps({**TRUTH, "imlist": np.array(TRUTH["imlist"]), "gnd": [arrays]}, protocol)
    )
    convert_ground_truth.main([str(tmp_path / "gnd.pkl"), str(tmp_path / "gnd.json")])
    assert load_ground_truth(tmp_path / "gnd.json") == TRUTH


def test_a_pickle_of_python_2_becomes_json(tmp_path: Path) -> None:
    # As Python 2.7 writes it: texts and the bytes of arrays are both SHORT_BINSTRING (U). "junk" is numpy.array([255]).
    text = lambda value: b"U" + bytes([len(value)]) + value  # noqa: E731
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R("
        b"K\x01K\x01\x85cnumpy\ndtype\n" + text(b"i8") + b"K\x00K\x01\x87R("
        b"K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(b"\xff" + bytes(7)) + b"tb"
    )
    entry = b"}(" + text(b"easy") + b"]K\x00a" + text(b"hard") + b"]" + text(b"junk") + array + b"u"
    names = b"](" + b"".join(text(b"i%d" % number) for number in range(256)) + b"e"
    whole = b"}(" + text(b"imlist") + names + text(b"qimlist") + b"]" + text(b"q") + b"a" + text(b"gnd") + b"]" + entry
    (tmp_path / "gnd.pkl").write_bytes(b"\x80\x02" + whole + b"au.")
    convert_ground_truth.convert(tmp_path / "gnd.pkl", tmp_path / "gnd.json")
    assert load_ground_truth(tmp_path / "gnd.json")["gnd"] == [{"easy": [0], "hard": [], "junk": [255]}]


def test_the_help_warns_that_a_pickle_runs_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        convert_ground_truth.main(["--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    assert "WARNING: a pickle can run any code when it is opened" in help_text
    assert "only on a file that you trust: the official gnd_roxford5k.pkl or gnd_rparis6k.pkl" in help_text


def test_what_is_no_ground_truth_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps({**TRUTH, "imlist": []}))
    with pytest.raises(SystemExit):
        convert_ground_truth.main([str(tmp_path / "gnd.pkl"), str(tmp_path / "gnd.json")])
    assert "imlist is not a list of names, or empty" in capsys.readouterr().err
    assert not (tmp_path / "gnd.json").exists()
