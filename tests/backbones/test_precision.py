"""What dtype="auto" comes to."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from small import noise_pictures, small_backbone
from sporeprint import KL, Fungi, Recipe
from sporeprint.backbones import precision
from sporeprint.backbones.precision import resolve_dtype
from sporeprint.errors import RecipeError

CPU, HALF = torch.device("cpu"), torch.bfloat16


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv(precision.VARIABLE)
    precision._log_choice.cache_clear()


@pytest.mark.parametrize("hardware", [True, False])
def test_auto_is_bfloat16_where_the_hardware_multiplies_it(hardware, monkeypatch):
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda device: hardware)
    assert resolve_dtype("auto", torch.float32, CPU) == (HALF if hardware else None)
    assert resolve_dtype("auto", torch.float64, CPU) is None
    assert resolve_dtype("auto", torch.float16, CPU) is None
    assert resolve_dtype("float32", torch.float32, CPU) is None
    assert resolve_dtype("bfloat16", torch.float32, CPU) == HALF


def test_the_environment_decides_where_it_is_set(monkeypatch):
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda device: True)
    monkeypatch.setenv(precision.VARIABLE, "float32")
    assert resolve_dtype("auto", torch.float32, CPU) is None
    assert resolve_dtype("bfloat16", torch.float32, CPU) == HALF
    monkeypatch.setenv(precision.VARIABLE, "half")
    with pytest.raises(RecipeError, match=r"SPOREPRINT_AUTO_DTYPE='half'.*expected float32 or bfloat16"):
        resolve_dtype("auto", torch.float32, CPU)


def test_what_auto_came_to_is_said_once_and_recorded(monkeypatch, caplog):
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda device: True)
    fungi = Fungi(Recipe(objectives=[KL(latent=8)]), backbone=small_backbone())
    with caplog.at_level(logging.INFO, logger="sporeprint"):
        fungi.fit(noise_pictures(2))
        assert fungi.describe()["dtype"] == "bfloat16"
    assert [record.message for record in caplog.records] == ["dtype auto: bfloat16 (what this cpu does best)"]
    assert fungi.engine.autocast == torch.bfloat16


@pytest.mark.parametrize("fitted", [True, False])
def test_what_was_fitted_on_one_machine_is_loaded_in_its_precision_on_another(fitted, monkeypatch, tmp_path, caplog):
    backbone, pictures = small_backbone(), noise_pictures(2)
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda device: fitted)
    fungi = Fungi(Recipe(objectives=[KL(latent=8)]), backbone=backbone).fit(pictures)
    expected = fungi.transform(pictures)
    fungi.save(tmp_path / "saved")
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda device: not fitted)
    with caplog.at_level(logging.INFO, logger="sporeprint"):
        loaded = Fungi.load(tmp_path / "saved", backbone=backbone)
    name = "bfloat16" if fitted else "float32"
    assert f"dtype auto: {name}, as it was fitted" in [record.message for record in caplog.records]
    assert loaded.describe()["dtype"] == name
    np.testing.assert_array_equal(loaded.transform(pictures), expected)
