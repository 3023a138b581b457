import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from sporeprint import KNN, Fungi, Recipe
from sporeprint.evaluate.choice.candidates import FREE, RAW
from sporeprint.run import demo as demo_module


@pytest.mark.usefixtures("few_penalties")
def test_the_demo_compares_features_and_predictors_on_digits_and_times_them(monkeypatch):
    monkeypatch.setattr(demo_module, "TIMED_ROWS", 5)
    comparison = demo_module.demo(3, 20, 10)
    images, labels = demo_module.digits()
    train, test = train_test_split(np.arange(len(images)), train_size=20, test_size=10, stratify=labels, random_state=3)
    fungi = Fungi(Recipe("tiny", objectives=[], layers=0, seed=3))
    rows, others = fungi.fit_transform([images[at] for at in train]), fungi.transform([images[at] for at in test])
    raw = comparison.entry(RAW).results["knn"]
    k, *vote = raw.predictor.removeprefix("kNN, k = ").split(", ")
    knn = KNN(k=int(k), vote=vote[0].removesuffix(" vote") if vote else "uniform").fit(rows, labels[train])
    assert raw.value.value == knn.score(others, labels[test])
    assert len(comparison.verdict.split()) <= 25
    assert comparison.entry(FREE).passes == 1
    assert all(entry.rows_per_second > 0 for entry in comparison.entries)
    assert comparison.entry(RAW).rows_per_second > comparison.entry("paper").rows_per_second
