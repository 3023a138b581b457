"""What people get wrong in a call is answered by an error of ours, which says what was expected."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from sporeprint import (
    KL,
    Backbone,
    Combination,
    Copies,
    Fungi,
    Preprocess,
    Recipe,
    Segmenter,
    SimCLR,
    analyse,
    check_backbone,
    check_objective,
    compare,
    demonstrations,
    knn,
    multilabel,
    open_source,
    probe,
    regress,
    retrieve,
    revisited,
    select,
)
from sporeprint.errors import SporeprintError
from sporeprint.segment.propagate import Propagator

ROWS, LABELS = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 2
BLOCKS = {"embedding": ROWS, "kl": ROWS[:, :2]}
TEXTS = ["a text"] * 20
KNOWN = (ROWS, LABELS, ROWS, LABELS)
LISTS = (ROWS, [["a"]] * 20, ROWS, [["a"]] * 20)

CALLS = {
    r"ks=5; expected a list, such as \(1, 5, 10\)": [
        lambda: retrieve(ROWS, LABELS, ks=5),
        lambda: revisited(ROWS, ROWS, {}, ks=5),
    ],
    "predictors='LDA'; expected a list": [lambda: select(BLOCKS, LABELS, predictors="LDA")],
    r"candidates=5; expected a list, such as \(1, 5, 10\)": [lambda: knn(*KNOWN, k="auto", candidates=5)],
    r"penalties=1.0; expected a list, such as \(0.01, 0.001\)": [
        lambda: probe(*KNOWN, penalties=1.0),
        lambda: regress(*KNOWN, method="ridge", penalties=1.0),
        lambda: multilabel(*LISTS, method="probe", penalties=1.0),
    ],
    r"penalties=\['weak'\]; expected one or more positive numbers": [lambda: probe(*KNOWN, penalties=["weak"])],
    "seed='first'; expected an integer of at least 0": [
        lambda: knn(*KNOWN, shots=3, seed="first"),
        lambda: probe(*KNOWN, seed="first"),
        lambda: multilabel(*LISTS, method="probe", seed="first"),
        lambda: select(BLOCKS, LABELS, seed="first"),
        lambda: compare(BLOCKS, LABELS, BLOCKS, LABELS, {"embedding": {}, "kl": {}}, seed="first"),
        lambda: analyse(BLOCKS, seed="first"),
    ],
    "seed=-1; expected an integer of at least 0": [lambda: knn(*KNOWN, shots=3, seed=-1)],
    "temperature='hot'; expected a number above 0": [
        lambda: regress(*KNOWN, temperature="hot"),
        lambda: multilabel(*LISTS, temperature="hot"),
        lambda: knn(*KNOWN, temperature="hot"),
    ],
    "validation=None; expected a fraction": [lambda: probe(*KNOWN, validation=None)],
    "blocks is a ndarray; expected arrays by name": [
        lambda: analyse(ROWS),
        lambda: select(ROWS, LABELS),
        lambda: Combination().fit(ROWS),
        lambda: Combination().fit(BLOCKS).transform(ROWS),
    ],
    "train blocks is a ndarray; expected arrays by name": [lambda: compare(ROWS, LABELS, ROWS, LABELS, {})],
    "info is a NoneType; expected .*Fungi.block_info": [lambda: compare(BLOCKS, LABELS, BLOCKS, LABELS, None)],
    r"candidates is a list; expected combinations by name": [lambda: select(BLOCKS, LABELS, candidates=["paper"])],
    "candidate 'mine' is a str; expected a Combination": [lambda: select(BLOCKS, LABELS, candidates={"mine": "paper"})],
    "template is a str; expected a Template": [
        lambda: demonstrations(ROWS, TEXTS, LABELS, ROWS, TEXTS, template="Q: {text}")
    ],
    "ground truth is a int; expected a file": [lambda: revisited(ROWS, ROWS, 3)],
    "blocks=3; expected names of blocks": [lambda: Combination(3)],
    "SimCLR augmentation=3; expected views, such as Patches": [lambda: SimCLR(augmentation=3)],
    r"flip='yes'; expected True or False": [lambda: Copies(flip="yes")],
    "source is a list; expected a path": [lambda: open_source(["a.png"])],
    "module is a str; expected an nn.Module; a network is loaded by its name with Recipe": [lambda: Backbone("tiny")],
    r"size=\(224, 224\); expected an integer of at least 1": [lambda: Preprocess(size=(224, 224))],
    "resize=0; expected an integer of at least 1": [lambda: Preprocess(size=8, resize=0)],
    "mean is 0.5; expected three numbers": [lambda: Preprocess(size=8, mean=0.5)],
    r"std is \(0.5, 0.5\); expected three numbers": [lambda: Preprocess(size=8, std=(0.5, 0.5))],
    "resample='bicubic'; expected one of Pillow's filters": [lambda: Preprocess(size=8, resample="bicubic")],
    "classes=0; expected an integer of at least 1": [lambda: Segmenter(Fungi(Recipe("tiny")), classes=0)],
    "ignore='void'; expected a list, such as": [lambda: Segmenter(Fungi(Recipe("tiny")), ignore="void")],
}


@pytest.mark.parametrize(
    ("complaint", "call"), [(complaint, call) for complaint, calls in CALLS.items() for call in calls]
)
def test_a_wrong_argument_is_named_with_what_was_expected(complaint, call):
    with pytest.raises(SporeprintError, match=complaint):
        call()


def test_contracts_name_what_they_were_given_instead_of_a_plug_in():
    with pytest.raises(AssertionError, match=r"KL.* is not an objective; give an instance .*, such as KL\(\)"):
        check_objective(KL)
    with pytest.raises(AssertionError, match=r"'tiny' is not a backbone; give Backbone\(module, ...\)"):
        check_backbone("tiny")


def test_one_void_label_needs_no_tuple():
    assert Segmenter(Fungi(Recipe("tiny")), ignore=255).ignore == (255,)
    reference = ROWS.reshape(4, 5, 4), np.array([[0, 1, 255, 255, 255]] * 4)
    assert Propagator.of([reference], ignore=255).values.tolist() == [0, 1]


def test_arrays_do_for_lists_of_numbers():
    assert knn(*KNOWN, k="auto", candidates=np.array([1, 3])).k in (1, 3)
    assert probe(*KNOWN, penalties=np.array([1e-2, 1e-3])).settings["penalties"] == [1e-2, 1e-3]


def test_a_plain_linear_network_needs_its_target_named():
    with pytest.raises(SporeprintError, match="name the layer to read"):
        Backbone(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), preprocess=Preprocess(size=8))
