"""On real features leave-one-out is exact."""

import numpy as np
import pytest

from sporeprint import ClassMeans, Fungi, Recipe, ShrunkLDA, open_source

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def flowers(shared):
    rows = list(open_source(shared / "data/flowers102/train.parquet").rows())[::6]
    fungi = Fungi(Recipe(backbone=str(shared / "models/deit-tiny"), objectives=[], layers=0))
    return fungi.fit_blocks([row.sample for row in rows])["embedding"], np.array([row.label for row in rows])


@pytest.mark.parametrize("predictor", [ShrunkLDA(), ClassMeans()])
def test_leave_one_out_of_real_rows_is_a_fit_without_each(flowers, predictor):
    rows, labels = flowers
    left = predictor.leave_one_out(rows, labels)
    for row in (3, 50, 140):
        rest = np.arange(len(rows)) != row
        model = type(predictor)().fit(rows[rest], labels[rest])
        model.temperature_ = left.temperature
        expected = model.predict_proba(rows[row : row + 1])[0]
        np.testing.assert_allclose(left.probabilities[row, np.isin(left.classes, model.classes_)], expected, atol=1e-9)
