"""Views of one clip of sound: noise, and a roll in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sporeprint.errors import RecipeError
from sporeprint.values import check_count, kind, short_repr

if TYPE_CHECKING:
    from sporeprint.backbones.inputs.sound import Sound
    from sporeprint.data.audio import Clip

FRAMES_A_SECOND = 100  # METHOD's spectrogram frames are 10 ms apart


@kind("noise-and-roll")
@dataclass(frozen=True)
class NoiseAndRoll:
    """Noise on the spectrogram, then a roll in time, on the real frames only; padding stays as it is.

    Spectrograms: U(0, 1) for each number, times one U(0, 1) for the view, times `noise`, in units of the natural
    logarithm of the power, before normalisation. Waveforms, which METHOD does not cover: U(-1, 1) for each sample,
    times one U(0, 1), times `noise`, times the clip's standard deviation. frames: the roll is uniform from -frames to
    frames, of 10 ms each.
    """

    views: int = 16
    noise: float = 0.1
    frames: int = 10

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_count("views", self.views)
        if not 0 <= self.noise < float("inf"):
            raise RecipeError(f"noise={self.noise!r}; expected a number of at least 0")
        check_count("frames", self.frames, least=0)

    def __call__(self, clip: Clip, preprocess: Sound, rng: np.random.Generator) -> list[dict[str, Tensor]]:
        """Return one input for each view; the first N are those that `views=N` would make."""
        plain = preprocess(clip)
        return [self._view(plain, preprocess, rng) for _ in range(self.views)]

    def _view(self, plain: dict[str, Tensor], preprocess: Sound, rng: np.random.Generator) -> dict[str, Any]:
        view = {name: tensor.clone() for name, tensor in plain.items()}
        real, time = preprocess.real(view)
        numbers = torch.from_numpy(rng.random(tuple(real.shape[-2:]), dtype=np.float32))  # CLAP: [copies, frames, bins]
        strength = self.noise * rng.random() * preprocess.noise_unit
        step = int(rng.random() * (2 * self.frames + 1)) - self.frames
        if preprocess.waveform:
            numbers, strength = numbers * 2 - 1, strength * float(real.std(correction=0))
            step = step * preprocess.rate_hz // FRAMES_A_SECOND
        real.copy_((real + strength * numbers).roll(step, dims=time))
        return view
