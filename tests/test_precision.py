"""What dtype="auto" comes to."""

from __future__ import annotations

import logging

import pytest
import torch

from small import noise_pictures, small_backbone
from sporeprint import KL, Fungi, Recipe, precision
from sporeprint.errors import RecipeError
from sporeprint.precision import resolve_dtype

CPU, HALF = torch.device("cpu"), ("bfloat16", torch.bfloat16)


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.delenv(precision.VARIABLE)
    precision._say.cache_clear()


@pytest.mark.parametrize("hardware", [True, False])
def test_auto_is_bfloat16_where_the_hardware_multiplies_it(hardware, monkeypatch):
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda device: hardware)
    assert resolve_dtype("auto", torch.float32, CPU) == (HALF if hardware else ("float32", None))
    assert resolve_dtype("auto", torch.float64, CPU) == ("float64", None)
    assert resolve_dtype("auto", torch.float16, CPU) == ("float16", None)
    assert resolve_dtype("float32", torch.float32, CPU) == ("float32", None)
    assert resolve_dtype("bfloat16", torch.float32, CPU) == HALF


def test_the_environment_decides_where_it_is_set(monkeypatch):
    monkeypatch.setattr(precision, "_multiplies_bfloat16", lambda device: True)
    monkeypatch.setenv(precision.VARIABLE, "float32")
    assert resolve_dtype("auto", torch.float32, CPU) == ("float32", None)
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
