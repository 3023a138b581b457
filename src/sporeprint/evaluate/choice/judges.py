"""The predictors that judge features, by their words for people, and how they are grouped into judges."""

from __future__ import annotations

from sklearn.base import clone

from sporeprint.evaluate.choice.candidates import EMBEDDING
from sporeprint.predictors.class_means import ClassMeans
from sporeprint.predictors.knn import KNN
from sporeprint.predictors.lda import ShrunkLDA
from sporeprint.predictors.logistic import Probe
from sporeprint.predictors.predictor import Predictor
from sporeprint.predictors.ridge import Ridge

PREDICTORS: dict[str, type[Predictor]] = {
    "kNN": KNN,
    "class means": ClassMeans,
    "LDA": ShrunkLDA,
    "ridge": Ridge,
    "probe": Probe,
}
CHOSEN = ("kNN", "LDA", "ridge", "probe")  # that a choice is among: class means win by the loss and lose on test rows
JUDGES = {"knn": ("kNN",), "closed": ("LDA", "ridge", "class means"), "probe": ("probe",)}


def judge_of(predictor: str) -> str:
    """The judge that a predictor belongs to."""
    return next(judge for judge, members in JUDGES.items() if predictor in members)


def word_of(predictor: Predictor) -> str:
    """The word for people of a predictor: "kNN", "LDA"."""
    return next(word for word, kind in PREDICTORS.items() if type(predictor) is kind)


def title_of_predictor(predictor: Predictor) -> str:
    """A predictor with its choices, for people: "kNN, k = 5", "LDA"."""
    word = word_of(predictor)
    if not isinstance(predictor, KNN):
        return word
    vote = "" if predictor.vote == "uniform" else f", {predictor.vote} vote"
    return f"{word}, k = {predictor.k}{vote}"


def pair_of(features: str, predictor: str) -> str:
    """Features with their predictor, in every sentence: "the embedding with LDA", "layers, white 0.5, with a probe".

    features: as `candidates.title_of` names them. predictor: as `title_of_predictor` names it.
    """
    words = f"the {features}" if features.split(",")[0] == EMBEDDING else features
    return f"{words}{',' * (',' in words)} with {'a ' * (predictor == 'probe')}{predictor}"


def fixed(predictor: Predictor) -> Predictor:
    """An unfitted copy of a predictor, with what it chose fixed where it was asked."""
    if not hasattr(predictor, "classes_"):
        return clone(predictor)
    if isinstance(predictor, KNN):
        return KNN(k=predictor.k_, vote=predictor.vote_)  # type: ignore[arg-type]
    if isinstance(predictor, Ridge):
        return Ridge(penalties=(predictor.penalty_,))
    if isinstance(predictor, Probe) and predictor.penalty_ is not None:
        return Probe(penalties=(predictor.penalty_,))
    return type(predictor)()
