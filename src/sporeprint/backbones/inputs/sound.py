"""Turn a clip of sound into what an audio backbone takes: its own feature extractor's spectrogram or waveform."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.data import audio
from sporeprint.data.audio import Clip
from sporeprint.data.limits import Limits
from sporeprint.errors import BackboneError, SampleError

MAX_SECONDS = 30.0  # longest waveform for networks without a limit: attention grows with its square
SHORTEST_SECONDS = 0.025  # one window of every feature extractor here, and of wav2vec 2.0's convolutions


@dataclass(frozen=True)
class Kind:
    """How the feature extractor of one family is read.

    time: axis of its input (after the batch's) along which time goes. unit: what 1 in the natural logarithm of a
    spectrogram's power is in the network's input. seconds: the longest clip; None without a limit.
    frames: those of a spectrogram that a clip of this many samples fills; the rest is padding. cost: of a view, in
    tokens.
    """

    time: int
    unit: Callable[[Any], float]
    seconds: Callable[[Any], float | None]
    frames: Callable[[Any, int], int] | None
    cost: Callable[[Any, int], int]


def _ast_frames(extractor: Any, samples: int) -> int:
    return min(extractor.max_length, 1 + (samples - 400) // 160)


def _clap_frames(extractor: Any, samples: int) -> int:
    """Count CLAP's frames: it repeats a short clip and pads the rest; frames are centred, with one more at the end."""
    most, repeated = extractor.nb_max_samples, samples
    if extractor.padding == "repeatpad":
        repeated = most // samples * samples
    if extractor.padding == "repeat" or repeated >= most:
        return int(most // extractor.hop_length + 1)
    return math.ceil(repeated / extractor.hop_length)


KINDS = {
    "WhisperFeatureExtractor": Kind(
        time=-1,
        unit=lambda extractor: 1 / math.log(10) / 4,  # (log10 + 4) / 4
        seconds=lambda extractor: extractor.n_samples / extractor.sampling_rate,
        frames=lambda extractor, samples: min(extractor.nb_max_frames, math.ceil(samples / extractor.hop_length)),
        cost=lambda extractor, samples: extractor.nb_max_frames // 2,
    ),
    "ASTFeatureExtractor": Kind(
        time=-2,
        unit=lambda extractor: 1 / (2 * extractor.std) if extractor.do_normalize else 1.0,
        seconds=lambda extractor: (400 + (extractor.max_length - 1) * 160) / 16_000,  # windows of 25 ms every 10 ms
        frames=_ast_frames,
        cost=lambda extractor, samples: 12 * extractor.max_length // 10,
    ),
    "ClapFeatureExtractor": Kind(
        time=-2,
        unit=lambda extractor: 10 / math.log(10),  # decibels
        seconds=lambda extractor: float(extractor.max_length_s),
        frames=_clap_frames,
        cost=lambda extractor, samples: 1024,
    ),
    "Wav2Vec2FeatureExtractor": Kind(
        time=-1,
        unit=lambda extractor: 1.0,
        seconds=lambda extractor: None,
        frames=None,
        # Four times the tokens: wav2vec 2.0's convolutions take 20 MB for a second of sound, about 1.5 GB a pass.
        cost=lambda extractor, samples: samples // 80 + 1,
    ),
}


class Sound(Inputs):
    """Turns clips into the input of an audio network by its own feature extractor.

    extractor: a Hugging Face feature extractor of Whisper, AST, CLAP, or wav2vec 2.0 and the like (which take
    waveforms). max_seconds: clips are cut there; default the extractor's own limit, for waveforms 30 s. pads: whether
    waveforms of different lengths may share a batch, which only networks that take a mask allow. shortest: samples
    below which the network makes nothing of a clip. Raises BackboneError.

    Examples
    --------
    >>> import numpy as np
    >>> from transformers import Wav2Vec2FeatureExtractor
    >>> from sporeprint import Sound
    >>> sound = Sound(Wav2Vec2FeatureExtractor(), max_seconds=1.0)
    >>> tone = np.sin(np.arange(32_000) / 10)  # two seconds at the network's 16 kHz
    >>> ready = sound.prepare(sound.load((tone, 16_000)))
    >>> sound.truncates(ready), {name: values.shape for name, values in sound(ready).items()}
    (True, {'input_values': torch.Size([16000])})
    """

    modality = "audio"
    sample = "clip"
    budget = 12_800  # tokens

    def __init__(self, extractor: Any, max_seconds: float | None = None, pads: bool = False, shortest: int = 0):
        name = type(extractor).__name__
        if name not in KINDS:
            raise BackboneError(f"the feature extractor is a {name}; expected one of: {', '.join(KINDS)}")
        if dither := getattr(extractor, "dither", 0):
            raise BackboneError(
                f"the feature extractor adds random noise (dither={dither}), so features would differ from run to run; "
                "set extractor.dither = 0.0"
            )
        if name == "ASTFeatureExtractor" and extractor.sampling_rate != 16_000:
            raise BackboneError(
                f"the feature extractor is for sound at {extractor.sampling_rate} Hz; AST's windows of 400 samples, "
                "160 apart, are of 25 and 10 ms at 16000 Hz only: set sampling_rate to 16000, and sound is resampled"
            )
        self.extractor = extractor
        self.rate_hz = int(extractor.sampling_rate)
        self.waveform = name == "Wav2Vec2FeatureExtractor"
        self.pads = pads or not self.waveform
        most = self.kind.seconds(extractor)
        if max_seconds is not None and not SHORTEST_SECONDS <= max_seconds <= (most or math.inf):
            upper = "" if most is None else f" to {most:.2f}"
            raise BackboneError(f"max_seconds={max_seconds}; expected {SHORTEST_SECONDS}{upper} s")
        self.max_seconds = max_seconds or most or MAX_SECONDS
        self.shortest = max(shortest, math.ceil(SHORTEST_SECONDS * self.rate_hz))
        self.main = extractor.model_input_names[0]

    @property
    def kind(self) -> Kind:
        """How its extractor is read; looked up, since lambdas cannot be pickled."""
        return KINDS[type(self.extractor).__name__]

    def load(self, sample: object, limits: Limits = Limits()) -> Clip:
        """Decode mono sound at its own rate. Raises SampleError."""
        return audio.load_audio(sample, limits)

    def digest(self, loaded: Clip) -> str:
        """Return a digest of rate and samples."""
        return audio.clip_digest(loaded)

    def prepare(self, loaded: Clip) -> Clip:
        """Resample to the network's rate, cut to `max_seconds`. Raises SampleError where it is too short, or silent."""
        clip = audio.resample(loaded, self.rate_hz)
        most = round(self.max_seconds * self.rate_hz)
        if len(clip.samples) < self.shortest:
            raise SampleError(
                f"{1000 * len(clip.samples) / self.rate_hz:.1f} ms of sound; this network needs at least "
                f"{1000 * self.shortest / self.rate_hz:g} ms: remove it, or join it to another"
            )
        if len(clip.samples) > most:
            clip = replace(clip, samples=clip.samples[:most], truncated=True)
            if np.ptp(clip.samples) == 0:
                raise SampleError(f"the first {self.max_seconds:g} s are silent, and no more is read; cut them off")
        return clip

    def truncates(self, ready: Clip) -> bool:
        """Return whether it was cut."""
        return ready.truncated

    def bulk(self, ready: Clip) -> int:
        """Return four bytes for each sample."""
        return int(ready.samples.nbytes)

    def length(self, ready: Clip) -> int:
        """Return about the number of tokens; for waveforms four times that."""
        return self.kind.cost(self.extractor, len(ready.samples))

    def same(self, ready: Clip) -> int:
        """Return a key; clips of equal keys may share a batch."""
        return 0 if self.pads else len(ready.samples)

    def __call__(self, ready: Clip) -> dict[str, Tensor]:
        """Return one view's input by the network's name for it, and "frames": a spectrogram's real ones."""
        extracted = self.extractor(ready.samples, sampling_rate=self.rate_hz, return_tensors="np")
        view = {self.main: torch.from_numpy(np.ascontiguousarray(extracted[self.main][0], dtype=np.float32))}
        if "is_longer" in extracted:
            view["is_longer"] = torch.as_tensor(extracted["is_longer"][0])
        if self.kind.frames is not None:
            view["frames"] = torch.tensor(self.kind.frames(self.extractor, len(ready.samples)))
        return view

    def real(self, view: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Return the part of a view's main input that is not padding, to be written into, and its time axis."""
        main = view[self.main]
        if "frames" in view:
            main = main.narrow(self.kind.time, 0, int(view["frames"]))
        return main, self.kind.time

    @property
    def noise_unit(self) -> float:
        """What 1 in the natural logarithm of the power is in the network's input; for waveforms 1."""
        return self.kind.unit(self.extractor)

    def collate(self, views: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return tensors [N, ...] of N views as made above; padded waveforms get "attention_mask" [N, samples]."""
        if not self.waveform:
            return {name: torch.stack([view[name] for view in views]) for name in views[0]}
        waves = [view[self.main] for view in views]
        batch = {self.main: torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)}
        if self.pads:
            lengths = torch.tensor([len(wave) for wave in waves])
            batch["attention_mask"] = (torch.arange(batch[self.main].shape[1]) < lengths[:, None]).long()
        return batch

    def probes(self) -> list[dict[str, Tensor]]:
        """Return three views of noise, of a second and less."""
        samples = np.random.Generator(np.random.PCG64(0)).random(self.rate_hz).astype(np.float32) - np.float32(0.5)
        shares = (1.0, 0.7, 0.4) if self.pads else (1.0, 1.0, 1.0)
        return [
            self(Clip(np.roll(samples, 99 * at)[: int(share * self.rate_hz)], self.rate_hz))
            for at, share in enumerate(shares)
        ]

    def describe(self) -> dict[str, Any]:
        """Return the extractor's settings; for AST also whether torchaudio, which changes it, is installed."""
        settings = {key: value for key, value in self.extractor.to_dict().items() if _is_plain(value)}
        if type(self.extractor).__name__ == "ASTFeatureExtractor":
            settings["torchaudio"] = find_spec("torchaudio") is not None
        return {**settings, "max_seconds": self.max_seconds, "pads": self.pads}

    def limits(self) -> dict[str, Any]:
        return {"sample_rate_hz": self.rate_hz, "max_seconds": self.max_seconds}


def is_extractor(value: Any) -> bool:
    """Return whether it is a Hugging Face feature extractor for sound, which is recognised, never imported."""
    return hasattr(value, "sampling_rate") and hasattr(value, "model_input_names")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))
