"""A stand-in for the probe until it is a predictor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.predictors.groups import Groups
from sporeprint.predictors.predictor import Predictor


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
