"""Stand-ins for the kNN and the probe until they are predictors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.predictors.groups import Groups
from sporeprint.predictors.predictor import Predictor


class KNN(Predictor):
    def __init__(self, k: Any = "auto", metric: str = "euclidean", vote: str = "uniform", temperature: float = 0.07):
        self.k, self.metric, self.vote, self.temperature = k, metric, vote, temperature

    def _fit(self, rows: NDArray[Any], codes: NDArray[np.intp], groups: Groups) -> None:
        from sporeprint.evaluate.knn import choose_k

        self._rows, self._codes = rows, codes
        table = choose_k(rows, codes) if self.k == "auto" else {}
        self.k_ = max(table, key=lambda k: (table[k], -k)) if self.k == "auto" else self.k

    def _scores(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        from sporeprint.evaluate.knn import knn_predict

        return np.eye(len(self.classes_))[knn_predict(self._rows, self._codes, rows, self.k_)]

    def _left_out(self, rows: Any, codes: NDArray[np.intp], groups: Groups) -> NDArray[np.float64]:
        apart = ((rows[:, None] - rows[None]) ** 2).sum(axis=2) if len(rows) < 200 else None
        if apart is None:
            lengths = (rows.astype(float) ** 2).sum(axis=1)
            apart = lengths[:, None] + lengths - 2 * rows.astype(float) @ rows.T.astype(float)
        for group in groups:
            apart[np.ix_(group, group)] = np.inf
        near = np.argsort(apart, axis=1, kind="stable")[:, : self.k_]
        return np.eye(len(self.classes_))[codes[near]].mean(axis=1)


class Probe(Predictor):
    def _fit(self, rows: NDArray[Any], codes: NDArray[np.intp], groups: Groups) -> None:
        from sklearn.linear_model import LogisticRegression

        self._model = LogisticRegression(C=10.0, max_iter=200).fit(rows, codes) if len(set(codes)) > 1 else None

    def _scores(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        scores = np.full((len(rows), len(self.classes_)), -30.0)
        if self._model is None:
            return scores
        scores[:, self._model.classes_] = np.log(self._model.predict_proba(rows) + 1e-12)
        return scores

    def _left_out(self, rows: Any, codes: NDArray[np.intp], groups: Groups) -> NDArray[np.float64]:
        scores = np.full((len(rows), len(self.classes_)), -30.0)
        which = np.random.default_rng(0).permutation(len(groups)) % 5
        for fold in range(5):
            out = [group for group, of in zip(groups, which, strict=True) if of == fold]
            if not out:
                continue
            asked = np.concatenate(out)
            rest = np.setdiff1d(np.arange(len(rows)), asked)
            self._fit(rows[rest], codes[rest], [])
            scores[asked] = self._scores(rows[asked])
        return scores
