import numpy as np
import pytest

from sporeprint.evaluate.accuracy import mean_per_class
from sporeprint.evaluate.choice.joined_features import passes_of
from sporeprint.evaluate.choice.leave_one_out import leave_one_out_of
from sporeprint.evaluate.choice.measure import (
    ALL,
    EMBEDDINGS,
    FREE,
    PLAIN,
    Facts,
    Trained,
    candidates,
    votes_of_others,
)
from sporeprint.evaluate.choice.select import choose, select, select_candidates
from sporeprint.evaluate.knn import choose_k, knn, leave_one_out
from sporeprint.features.combine import Combination

pytestmark = pytest.mark.filterwarnings("error")

WHOLE, CUT = {"views": "whole", "passes": 1}, {"views": "simclr", "passes": 9}
INFO = {
    "embedding": {"family": "embedding", **WHOLE},
    "cls-1": {"family": "layers", **WHOLE},
    "simclr.views": {"family": "views", **CUT},
    "kl": {"family": "gradients", **WHOLE},
    "simclr": {"family": "gradients", **CUT},
}
SECONDS = {"whole": 2.0, "simclr": 6.0, "projection": 1.0, "negatives": 99.0}


def drawn(rows, seed=0, names=tuple(INFO)):
    """Blocks of three classes that overlap, and the labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    centres = np.random.default_rng(99).standard_normal((3, 6))
    blocks = {name: (centres[labels] + rng.standard_normal((rows, 6))).astype(np.float32) for name in names}
    return blocks, labels


def test_passes_count_each_set_of_views_once():
    facts = Facts(INFO, {}, 0)
    assert passes_of(["embedding"], facts.info) == passes_of(["embedding", "cls-1", "kl"], facts.info) == 1
    assert passes_of(["simclr"], facts.info) == passes_of(["simclr", "simclr.views"], facts.info) == 9
    assert passes_of(list(INFO), facts.info) == 10


def test_speed_is_the_time_of_the_views_and_of_the_share_of_projecting():
    facts = Facts(INFO, SECONDS, 100)
    assert facts.rows_per_second(["embedding"]) == 50.0
    assert facts.rows_per_second(["embedding", "cls-1", "kl"]) == 40.0  # 2 s and half of the projection's one
    assert facts.rows_per_second(["embedding", "simclr.views"]) == 12.5
    assert facts.rows_per_second(list(INFO)) == pytest.approx(100 / 9)
    assert facts.rows_per_second(["simclr"]) == pytest.approx(100 / 6.5)


def test_speed_is_unknown_where_the_store_does_not_say():
    assert Facts(INFO, {}, 100).rows_per_second(["embedding"]) is None
    assert Facts(INFO, SECONDS, 0).rows_per_second(["embedding"]) is None
    assert Facts(INFO, {"whole": 2.0}, 100).rows_per_second(["embedding", "simclr"]) is None
    assert Facts(INFO, {"whole": 0.0}, 100).rows_per_second(["embedding"]) is None


def test_free_is_what_the_embeddings_own_pass_gives_and_another_single_view_is_not():
    info = {**INFO, "mlm": {"family": "gradients", "views": "masked", "passes": 1}}
    facts = Facts(info, {}, 0)
    assert facts.free(list(info)) == ["embedding", "cls-1", "kl"]
    assert passes_of(["embedding", "mlm"], facts.info) == 2


def test_a_price_is_of_the_fitted_features():
    blocks, _ = drawn(20)
    combiner = Combination(("embedding", "simclr"), whiten=4).fit(blocks)
    assert Facts(INFO, SECONDS, 100).price(combiner) == {
        "blocks": ("embedding", "simclr"),
        "width": 8,
        "bytes_per_row": 32,
        "passes": 10,
        "rows_per_second": pytest.approx(100 / 8.5),
    }


def test_what_is_always_measured_depends_on_the_families_that_there_are():
    assert {name: role for name, (role, _) in candidates(list(INFO)).items()} == {
        "embedding": "embedding",
        "embedding, white 0.5": "embedding",
        "embedding, white 1": "embedding",
        "cls-1": "control",
        "cls-1, white 1": "control",
        "simclr.views": "control",
        "simclr.views, white 1": "control",
        "kl alone": "block",
        "kl alone, white 1": "block",
        "simclr alone": "block",
        "simclr alone, white 1": "block",
        "embedding + views, white 1": "control",
        "embedding + layers, white 1": "control",
        "embedding + layers + views, white 1": "control",
        "embedding + gradients, white 1": "combined",
        "embedding + layers + gradients, white 1": "combined",
        "paper": "paper",
        "decorrelated": "combined",
    }
    assert {name: role for name, (role, _) in candidates(["embedding", "cls-1"]).items()} == {
        "embedding": "embedding",
        "embedding, white 0.5": "embedding",
        "embedding, white 1": "embedding",
        "cls-1": "control",
        "cls-1, white 1": "control",
        "embedding + layers, white 1": "control",
        "decorrelated": "control",
    }
    for role, one in candidates(list(INFO)).values():
        if role == "control":
            assert not {"kl", "simclr"} & set(one.members(list(INFO)))


def test_every_entry_is_what_the_public_functions_give():
    (train, labels), (test, test_labels) = drawn(36), drawn(15, seed=1)
    trained = Trained(train, labels, Facts(INFO, SECONDS, 100), 1000, 0)
    guesses = trained.guesses(test)
    assert list(guesses) == [one.name for one in trained.entries] == [*candidates(list(INFO)), FREE, PLAIN, ALL]
    for one in trained.entries:
        combiner = one.combination.fit(train)
        features, asked = combiner.transform(train), combiner.transform(test)
        table = choose_k(features, labels)
        found = knn(features, labels, asked, test_labels, k="auto")
        assert (one.k, one.leave_one_out) == (found.k, table[found.k]), one.name
        assert (guesses[one.name] == test_labels).mean() == found.value
        assert mean_per_class(guesses[one.name] == test_labels, test_labels) == pytest.approx(found.mean_per_class)
        assert (one.blocks, one.width) == (combiner.names, features.shape[1])
    better = max(EMBEDDINGS, key=lambda name: trained.entry(name).leave_one_out)
    assert trained.reference == better


@pytest.mark.parametrize(("views", "recommended"), [(0.0, FREE), (6.0, ALL)])
def test_more_passes_are_recommended_where_the_training_rows_surely_gain(views, recommended):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    train = {name: rng.standard_normal((60, 6)).astype(np.float32) for name in ("embedding", "cls-1", "simclr.views")}
    train["cls-1"][np.arange(60), labels] += 2
    train["simclr.views"][np.arange(60), labels] += views
    trained = Trained(train, labels, Facts(INFO, {}, 0), 1000, 0)
    assert trained.recommended == recommended
    assert trained.entry(FREE).blocks != ("embedding",)


def test_choices_are_those_of_select_among_what_each_may_take():
    train, labels = drawn(36)
    trained = Trained(train, labels, Facts(INFO, {}, 0), 1000, 0)
    assert trained.entry(ALL).combination == select(train, labels).combination
    free = {name: train[name] for name in ("embedding", "cls-1", "kl")}
    assert trained.entry(FREE).combination == select(free, labels).combination
    assert set(trained.entry(FREE).blocks) <= set(free)
    plain = {name: train[name] for name in ("embedding", "cls-1", "simclr.views")}
    assert trained.entry(PLAIN).combination == select(plain, labels).combination
    assert [trained.entry(name).role for name in (FREE, PLAIN, ALL)] == ["chosen", "control", "chosen"]


def test_the_control_without_gradients_is_there_only_where_there_are_gradients():
    train, labels = drawn(20, names=("embedding", "cls-1"))
    names = [one.name for one in Trained(train, labels, Facts(INFO, {}, 0), 1000, 0).entries]
    assert names[-2:] == [FREE, ALL]
    assert PLAIN not in names


def test_a_choice_among_some_candidates_is_that_of_asking_them_alone():
    train, labels = drawn(30)
    found = select_candidates(list(train))
    some = {name: found[name] for name in select_candidates(["embedding", "cls-1", "simclr.views"])}
    rights = leave_one_out_of(train, labels, found)
    assert choose(some, rights) == choose(some, leave_one_out_of(train, labels, some))


@pytest.mark.parametrize("most", [1, 7, 29])
def test_some_rows_ask_and_all_are_neighbours(monkeypatch, most):
    monkeypatch.setattr("sporeprint.search.neighbours._QUERIES", 4)
    blocks, labels = drawn(30)
    rows = np.sort(np.random.default_rng(0).choice(30, most, replace=False))
    found = votes_of_others(blocks["embedding"], labels, rows, (1, 3, 10, 40))
    every = leave_one_out(blocks["embedding"], labels, (1, 3, 10, 40))
    assert list(found) == [1, 3, 10]
    for k, right in found.items():
        assert right.tolist() == every[k][rows].tolist()


def test_a_row_among_many_doubles_is_no_neighbour_of_its_own():
    features, labels = np.ones((12, 2), np.float32), np.array([0, 0, 0, *[1] * 9])
    rows = np.array([0, 2, 11])
    every = leave_one_out(features, labels, (1, 2, 3))
    found = votes_of_others(features, labels, rows, (1, 2, 3))
    assert {k: right.tolist() for k, right in found.items()} == {k: right[rows].tolist() for k, right in every.items()}


def test_more_rows_than_may_choose_are_neighbours_all_the_same():
    train, labels = drawn(45)
    trained = Trained(train, labels, Facts(INFO, {}, 0), 20, 5)
    rows = np.sort(np.random.default_rng(5).choice(45, 20, replace=False))
    for one in trained.entries:
        right = leave_one_out(one.combination.fit(train).transform(train), labels)
        table = {k: found[rows].mean() for k, found in right.items()}
        assert one.leave_one_out == max(table.values()) == table[one.k]


def test_a_mean_over_classes_takes_those_that_test_rows_have():
    guess, labels = np.array([*"aaab"]), np.array([*"aabb"])
    assert mean_per_class(guess == labels, labels) == 0.75
    assert mean_per_class(np.array([True, True, True, False]), np.array([*"aaac"])) == 0.5
