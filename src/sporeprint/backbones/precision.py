"""Resolve a recipe's dtype to a precision on a device."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from typing import Any

import torch

from sporeprint.errors import RecipeError

log = logging.getLogger("sporeprint")
VARIABLE = "SPOREPRINT_AUTO_DTYPE"  # what "auto" means, for runs on machines of several kinds


def resolve_dtype(dtype: str, weights: torch.dtype, device: torch.device) -> torch.dtype | None:
    """Return the autocast for `dtype`; None for the weights' own precision.

    "auto" is bfloat16 for float32 weights where the device multiplies it in hardware (CPUs with AMX or AVX512-BF16,
    GPUs from compute capability 8.0), else the weights' own. With DeiT-tiny on Flowers102 the least cosine with
    float32 over all blocks was 0.9997 (docs/speed.md). Raises RecipeError.
    """
    own = dtype_name(weights)
    if dtype == "float32" and own not in ("float32", "float64"):
        raise RecipeError(
            f"dtype='float32', but the backbone's weights are {own}; convert it first (module.float()) or use 'auto'"
        )
    if dtype == "auto" and own == "float32":
        dtype = _auto(device.type)
    return torch.bfloat16 if dtype == "bfloat16" else None


def as_fitted(dtype: str, fitted: str, weights: torch.dtype, device: torch.device) -> torch.dtype | None:
    """Call `resolve_dtype`, with "auto" as it was where the state was fitted, which another machine must follow."""
    own = dtype_name(weights)
    if dtype != "auto" or own != "float32" or fitted not in ("float32", "bfloat16"):
        return resolve_dtype(dtype, weights, device)
    if fitted != _auto(device.type):
        log.info("dtype auto: %s, as it was fitted", fitted)
    return torch.bfloat16 if fitted == "bfloat16" else None


def dtype_name(weights: torch.dtype, autocast: torch.dtype | None = None) -> str:
    """Return what a pass computes in: "float32", "bfloat16", ..."""
    return str(autocast or weights).removeprefix("torch.")


def _auto(device: str) -> str:
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in ("", "float32", "bfloat16"):
        raise RecipeError(f"{VARIABLE}={wanted!r} in the environment; expected float32 or bfloat16, or leave it unset")
    dtype = wanted or ("bfloat16" if _multiplies_bfloat16(device) else "float32")
    _log_choice(dtype, device, wanted)
    return dtype


@lru_cache(maxsize=8)
def _log_choice(dtype: str, device: str, wanted: str) -> None:
    why = f"{VARIABLE}={wanted}" if wanted else f"what this {device} does best"
    log.info("dtype auto: %s (%s)", dtype, why)


@lru_cache(maxsize=4)
def _multiplies_bfloat16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    cpu: Any = torch.cpu
    asked = (getattr(cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return device == "cpu" and any(ask() for ask in asked if ask is not None)
