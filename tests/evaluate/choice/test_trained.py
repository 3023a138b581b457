"""All that `compare` takes from the training rows."""

import numpy as np
import pytest

from small_blocks import INFO, classed_blocks
from sporeprint.evaluate.choice.candidates import (
    ALL,
    DECORRELATED,
    EMBEDDINGS,
    FREE,
    HALF_WHITE,
    PAPER,
    PLAIN,
    REFERENCES,
    full_table,
)
from sporeprint.evaluate.choice.judges import CHOSEN, JUDGES, PREDICTORS, judge_of, title_of_predictor, word_of
from sporeprint.evaluate.choice.leave_one_out import leave_one_out_of
from sporeprint.evaluate.choice.select import select
from sporeprint.evaluate.choice.trained import Trained
from sporeprint.evaluate.table import Costs
from sporeprint.predictors.knn import KNN
from sporeprint.predictors.lda import ShrunkLDA
from sporeprint.predictors.ridge import Ridge

pytestmark = pytest.mark.filterwarnings("error")
SECONDS = {"whole": 2.0, "simclr": 6.0, "projection": 1.0, "negatives": 99.0}
COSTS = Costs(INFO, {}, 0)


@pytest.fixture(scope="module")
def rows():
    """Training rows and labels, test rows."""
    return *classed_blocks(36), classed_blocks(15, seed=1)[0]


@pytest.fixture(scope="module")
def trained(rows):
    return Trained(rows[0], rows[1], Costs(INFO, SECONDS, 100))


def features(entry, train, test):
    combiner = entry.combination.fit(train)
    return combiner.transform(train), combiner.transform(test)


def test_the_entries_are_the_full_table_and_the_choices(trained, rows):
    table = [candidate.name for candidate in full_table(list(INFO))]
    assert [entry.name for entry in trained.entries] == [*table, FREE, PLAIN, ALL]
    for entry in trained.entries:
        known, _ = features(entry, rows[0], rows[2])
        assert (entry.blocks, entry.width) == (entry.combination.fit(rows[0]).names, known.shape[1])
        probed = entry.name in (*EMBEDDINGS, PAPER, DECORRELATED, FREE, PLAIN, ALL)
        assert set(trained.outcomes[entry.name]) == {"knn", "closed", *(["probe"] if probed else [])}


def test_the_probe_may_be_left_to_the_embeddings_that_can_be_the_reference(rows):
    trained = Trained(rows[0], rows[1], COSTS, probe=False)
    for entry in trained.entries:
        assert ("probe" in trained.outcomes[entry.name]) == (entry.name in REFERENCES or entry.judge == "probe")


def test_every_judge_takes_its_best_predictor_and_says_what_it_says(trained, rows):
    train, labels, test = rows
    guesses = trained.guesses(test)
    for entry in trained.entries:
        known, asked = features(entry, train, test)
        for judge, outcome in trained.outcomes[entry.name].items():
            losses = {word: PREDICTORS[word]().leave_one_out(known, labels).losses.mean() for word in JUDGES[judge]}
            if entry.name not in (trained.reference, FREE, PLAIN, ALL):  # whose predictor the choice decides
                assert outcome.loss == pytest.approx(min(losses.values()), abs=2e-3)
            assert outcome.loss == pytest.approx(losses[word_of(outcome.predictor)], abs=2e-3)
            fitted = PREDICTORS[word_of(outcome.predictor)]().fit(known, labels)
            assert (guesses[entry.name][judge] == fitted.predict(asked)).mean() > 0.9, (entry.name, judge)


def test_a_table_is_read_by_the_better_of_neighbours_and_closed_form(trained):
    for entry in trained.entries[3:-3]:
        losses = {judge: trained.outcomes[entry.name][judge].loss for judge in ("knn", "closed")}
        assert entry.judge == min(losses, key=losses.get)


def test_the_reference_is_the_best_of_what_may_be_chosen_on_the_raw_and_the_half_white_embedding():
    train, labels = classed_blocks(90, names=("embedding", "cls-1"))
    many = Trained(train, labels, COSTS)
    outcomes = leave_one_out_of(train, labels, REFERENCES, CHOSEN, probed=set(REFERENCES))
    losses = {(name, word): outcome.loss for name, of in outcomes.items() for word, outcome in of.items()}
    name, word = min(losses, key=losses.get)
    assert (many.reference, many.entry(many.reference).judge) == (name, judge_of(word))
    assert many.outcomes[name][judge_of(word)].loss == losses[name, word]


def test_with_few_rows_of_a_class_the_reference_is_lda_on_the_raw_embedding(trained):
    assert (trained.reference, trained.entry("embedding").judge) == ("embedding", "closed")
    assert type(trained.outcomes["embedding"]["closed"].predictor) is ShrunkLDA


def test_choices_are_those_of_select_among_what_each_may_take(trained, rows):
    train, labels, _ = rows
    plain = ("embedding", "cls-1", "simclr.views")
    for name, members in ((ALL, tuple(INFO)), (FREE, ("embedding", "cls-1", "kl")), (PLAIN, plain)):
        chosen = select({block: train[block] for block in members}, labels)
        entry = trained.entry(name)
        assert set(entry.blocks) <= set(members)
        assert entry.combination == chosen.combination
        assert entry.judge == judge_of(word_of(chosen.predictor))
        predictor = trained.outcomes[name][entry.judge].predictor
        assert title_of_predictor(predictor) == title_of_predictor(chosen.predictor)
    assert [trained.entry(name).role for name in (FREE, PLAIN, ALL)] == ["chosen", "control", "chosen"]


def test_the_control_without_gradients_is_there_only_where_there_are_gradients():
    train, labels = classed_blocks(20, names=("embedding", "cls-1"))
    names = [entry.name for entry in Trained(train, labels, COSTS).entries]
    assert names[-2:] == [FREE, ALL]
    assert PLAIN not in names


@pytest.mark.parametrize(("views", "recommended"), [(0.0, FREE), (6.0, ALL)])
def test_more_passes_are_recommended_where_the_training_rows_surely_gain(views, recommended):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    train = {name: rng.standard_normal((60, 6)).astype(np.float32) for name in ("embedding", "cls-1", "simclr.views")}
    train["cls-1"][np.arange(60), labels] += 2
    train["simclr.views"][np.arange(60), labels] += views
    trained = Trained(train, labels, COSTS)
    assert trained.recommended == recommended
    assert trained.entry(FREE).blocks != ("embedding",)
    assert trained.predictor is trained.outcomes[recommended][trained.entry(recommended).judge].predictor


def test_rows_that_may_not_choose_are_fitted_on_all_the_same():
    (train, labels), (test, _) = classed_blocks(45), classed_blocks(12, seed=1)
    trained = Trained(train, labels, COSTS, 20, 5)
    few = leave_one_out_of(train, labels, {"it": REFERENCES["embedding"]}, ("kNN",), most_rows=20, seed=5)
    assert trained.outcomes["embedding"]["knn"].right.tolist() == few["it"]["kNN"].right.tolist()
    known, asked = features(trained.entry("embedding"), train, test)
    predictor = trained.outcomes["embedding"]["knn"].predictor
    expected = KNN(predictor.k, vote=predictor.vote).fit(known, labels).predict(asked)
    assert trained.guesses(test)["embedding"]["knn"].tolist() == expected.tolist()


def test_rows_of_a_group_are_left_out_together():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 30).repeat(2)
    train = {name: rng.standard_normal((30, 8)).repeat(2, axis=0).astype(np.float32) for name in INFO}
    leaked, honest = Trained(train, labels, COSTS), Trained(train, labels, COSTS, groups=np.arange(30).repeat(2))
    assert leaked.outcomes["embedding"]["knn"].value == 1.0
    assert honest.outcomes["embedding"]["knn"].value < 0.6


def test_words_for_people():
    assert title_of_predictor(KNN(k=5, vote="uniform")) == "kNN, k = 5"
    assert title_of_predictor(KNN(k=20, vote="softmax")) == "kNN, k = 20, softmax vote"
    assert (title_of_predictor(ShrunkLDA()), title_of_predictor(Ridge(penalties=(0.1,)))) == ("LDA", "ridge")
    assert [judge_of(word) for word in PREDICTORS] == ["knn", "closed", "closed", "closed", "probe"]


@pytest.mark.parametrize("word", PREDICTORS)
def test_another_pair_may_be_the_reference_and_the_choices_stay(rows, word):
    trained = Trained(rows[0], rows[1], COSTS)
    chosen = {name: trained.outcomes[name] for name in (FREE, PLAIN, ALL)}
    before = trained.pair
    trained.refer_to(HALF_WHITE, word)
    assert trained.pair == (HALF_WHITE, word)
    assert trained.entry(HALF_WHITE).judge == judge_of(word)
    assert {name: trained.outcomes[name] for name in (FREE, PLAIN, ALL)} == chosen
    trained.refer_to(*before)
    assert trained.pair == before


def test_few_rows_of_a_class_are_said_by_all_rows_and_not_by_those_that_choose():
    for count, few in ((87, True), (96, False)):
        train, labels = classed_blocks(count, names=("embedding", "cls-1"))
        trained = Trained(train, labels, COSTS, most_rows=60, probe=False)
        assert [note.split(" (")[0] for note in trained.notes] == ["few rows of a class"] * few
        assert not few or trained.pair == ("embedding", "LDA")


def test_ridge_takes_its_penalty_from_all_rows_where_fewer_chose():
    (train, labels), (test, _) = classed_blocks(240, embedding=0.3), classed_blocks(60, seed=1)
    trained = Trained(train, labels, COSTS, most_rows=12, probe=False)
    trained.refer_to("embedding", "ridge")
    known, asked = features(trained.entry("embedding"), train, test)
    model = Ridge().fit(known, labels)
    drawn = Ridge().fit(known[trained.labelled.rows], labels[trained.labelled.rows])
    assert model.penalty_ != drawn.penalty_
    expected = model.predict(asked)
    assert trained.guesses(test, names={"embedding"})["embedding"]["closed"].tolist() == expected.tolist()
    assert trained.outcomes["embedding"]["closed"].predictor.penalties == Ridge().penalties
    whole = Trained(train, labels, COSTS, probe=False)
    whole.refer_to("embedding", "ridge")
    assert whole.outcomes["embedding"]["closed"].predictor.penalties == (model.penalty_,)
