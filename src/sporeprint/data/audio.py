"""Decode one sample, whatever a table, a folder or a list holds, to mono sound, or raise a `SampleError`."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from importlib import import_module
from typing import Any

import numpy as np

from sporeprint.data.columns import given
from sporeprint.data.containers import checked_flac, damaged, whole_file
from sporeprint.data.files import opened
from sporeprint.data.limits import Limits
from sporeprint.data.signatures import reason
from sporeprint.errors import MissingExtra, SampleError
from sporeprint.values import is_number

MAX_VALUE = 8.0  # float sound is in [-1, 1]; decoders and loud mixes pass that, by less than 18 dB
MAX_CHANNELS = 8  # in an array
RATES_HZ = (1_000, 768_000)
SUFFIXES = frozenset(
    {".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"}
)
_FULL_RANGE = {"int8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}
_STRIP = 2**20  # frames that are averaged at once


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip of mono sound.

    samples: float32 [n]. rate_hz: None where an array came without one (it is then at the backbone's rate).
    truncated: set later by a backbone that cuts it.
    """

    samples: np.ndarray
    rate_hz: int | None
    truncated: bool = False


def load_audio(sample: object, limits: Limits = Limits()) -> Clip:
    """Decode `sample` to mono sound at its own rate, channels averaged.

    sample: a path, encoded bytes, a Hugging Face struct `{"bytes", "path"}` or `{"array", "sampling_rate"}`, a pair
    (array, rate in Hz), a NumPy array or torch tensor, or a `Clip`, which is checked and returned as it is. An array
    is [n], [channels, n] or [n, channels]: the shorter side is the channels, at most 8. int8, int16 and int32 are
    divided by 2^7, 2^15, 2^31; unsigned and 64-bit integers are refused, as their zero or scale is not known. Floats,
    in arrays and files, are in [-1, 1]; they are taken as they are, up to 8 (18 dB above), and refused beyond.

    Files: WAV, RF64, W64 and AIFF of PCM, float, A-law or mu-law; FLAC; OGG (one Vorbis or Opus stream); MP3.
    A truncated file is detected in all of them, except a WAV or AIFF whose header leaves the length open, as one
    written to a pipe does, and an MP3 without a Xing or Info header cut exactly between two frames. Changed bytes are
    detected in FLAC and OGG, which hold checksums; in WAV, AIFF and MP3 only where the headers contradict each other.

    Raises SampleError, with a reason of one line, for anything that is not whole, audible sound of at most
    `limits`, and MissingExtra where a file is given and soundfile is not installed.
    """
    sample = given(sample, "audio")
    if isinstance(sample, Mapping):
        sample = _from_struct(sample)
    if isinstance(sample, Clip):
        return _checked_clip(sample, limits)
    if isinstance(sample, tuple):
        return _from_pair(sample, limits)
    if _is_array(sample):
        return _from_array(sample, None, limits)
    if isinstance(sample, (bytes, bytearray, memoryview)):
        return _decode(bytes(sample), "these bytes", limits)
    if isinstance(sample, (str, os.PathLike)):
        return _from_path(sample, limits)
    raise SampleError(
        f"no audio: got {_kind(sample)}; expected a path, encoded bytes, a struct of bytes and path or of array and "
        "sampling_rate, a pair (array, rate), or an array; check which column holds the audio"
    )


def clip_digest(clip: Clip) -> str:
    """Return a hex digest (16 bytes) of a clip's rate and samples: the id of a sample that has no other."""
    digest = blake2b(f"{clip.rate_hz} ".encode(), digest_size=16)
    digest.update(clip.samples.astype("<f4").tobytes())
    return digest.hexdigest()


def resample(clip: Clip, rate_hz: int) -> Clip:
    """Resample `clip` to `rate_hz` (soxr, HQ); samples at that rate already, or at an unknown one, stay as they are."""
    if clip.rate_hz is None or clip.rate_hz == rate_hz:
        return replace(clip, rate_hz=rate_hz)
    soxr = _extra("soxr", "sound at another rate than the backbone's")
    try:
        samples = soxr.resample(clip.samples, clip.rate_hz, rate_hz, quality="HQ")
    except Exception as error:
        raise SampleError(f"cannot be resampled from {clip.rate_hz} to {rate_hz} Hz: {reason(error)}") from None
    if not len(samples):
        raise SampleError(
            f"{len(clip.samples)} samples at {clip.rate_hz} Hz leave none at {rate_hz} Hz; give a longer clip"
        )
    return replace(clip, samples=np.asarray(samples, dtype=np.float32), rate_hz=rate_hz)


def mp3(clip: Clip, rate_hz: int = 16_000) -> bytes:
    """Encode `clip` as MP3, resampled to `rate_hz`, for a page: every browser plays it. Raises SampleError."""
    soundfile = _extra("soundfile", "sound in a page")
    file = io.BytesIO()
    try:
        soundfile.write(file, resample(clip, rate_hz).samples, rate_hz, format="MP3")
    except (RuntimeError, ValueError) as error:  # ValueError: an old libsndfile, which writes no MP3
        raise SampleError(f"cannot be encoded as MP3: {reason(error)}") from None
    return file.getvalue()


def _extra(package: str, what: str) -> Any:
    try:
        return import_module(package)
    except (ImportError, OSError) as error:  # OSError: soundfile without its libsndfile
        raise MissingExtra(f"{what} needs {package}; pip install 'sporeprint[audio]'") from error


def _kind(value: object) -> str:
    return "null (an empty cell)" if value is None else f"a value of type {type(value).__name__}"


def _from_struct(sound: Mapping[str, Any]) -> object:
    if sound.get("array") is not None:
        return sound["array"], sound.get("sampling_rate")
    for key in ("bytes", "path"):
        if sound.get(key) is not None:
            return sound[key]
    raise SampleError(f"no audio: got a struct of {sorted(map(str, sound))} without bytes, path or array; give one")


def _from_pair(pair: tuple[Any, ...], limits: Limits) -> Clip:
    if len(pair) != 2 or not (_is_array(pair[0]) or isinstance(pair[0], list)):
        types = ", ".join(type(part).__name__ for part in pair[:4])
        raise SampleError(f"no audio: got a tuple of {len(pair)} ({types}); expected a pair (array, rate in Hz)")
    return _from_array(*pair, limits)


def _is_array(value: object) -> bool:  # a torch tensor is recognised without importing torch
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "cpu"))


def _from_array(value: Any, rate: Any, limits: Limits) -> Clip:
    try:
        if not isinstance(value, (np.ndarray, list)):
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() else value).numpy()  # NumPy has no bfloat16
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise SampleError(f"this array cannot be read: {reason(error)}; give a dense one of numbers") from None
    name = f"an array {list(array.shape)} of {array.dtype}"
    if array.ndim == 2 and array.shape[0] != array.shape[1]:
        array = array if array.shape[0] > array.shape[1] else array.T  # [n, channels]
    elif array.ndim != 1:
        raise SampleError(f"{name}: expected [n], [channels, n] or [n, channels]; one clip a sample")
    channels = array.shape[1] if array.ndim == 2 else 1
    if channels > MAX_CHANNELS:
        raise SampleError(f"{name}: {channels} channels, expected at most {MAX_CHANNELS}; give the waveform")
    if array.dtype.kind != "f" and array.dtype.name not in _FULL_RANGE:
        raise SampleError(f"{name}: expected a float in [-1, 1], int16, int8 or int32; convert it")
    rate_hz = _checked_rate(rate, name)
    limits.check_sound(len(array), channels, rate_hz, name)
    return Clip(_mono(array, _FULL_RANGE.get(array.dtype.name), name), rate_hz)


def _mono(frames: np.ndarray, full_range: float | None, name: str) -> np.ndarray:
    """Return the mean over the channels of [n] or [n, channels], divided by `full_range`: float32 [n]."""
    samples = np.empty(len(frames), np.float32)
    values = _Values()
    with np.errstate(all="ignore"):
        for start in range(0, len(frames) if frames.size else 0, _STRIP):
            strip = frames[start : start + _STRIP]
            strip = strip / full_range if full_range else strip
            values.add(strip)  # of each channel: what is no sound may cancel in the mean
            several = strip.ndim == 2 and strip.shape[1] > 1
            samples[start : start + _STRIP] = strip.mean(axis=1, dtype=np.float64) if several else strip.reshape(-1)
    values.check(name)
    return _audible(samples, name)


@dataclass
class _Values:
    """The range of all samples of all channels, strip by strip."""

    count: int = 0
    bad: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, strip: np.ndarray) -> None:
        self.count, self.bad = self.count + strip.size, self.bad + int((~np.isfinite(strip)).sum())
        self.low, self.high = min(self.low, float(strip.min())), max(self.high, float(strip.max()))

    def check(self, name: str) -> None:
        """Raise SampleError where they are not sound."""
        if not self.count:
            raise SampleError(f"{name}: zero samples; expected sound; replace or remove it")
        if self.bad:
            raise SampleError(
                f"{name}: {self.bad:,} of {self.count:,} samples are NaN or infinite; repair or remove it"
            )
        if max(-self.low, self.high) > MAX_VALUE:
            raise SampleError(
                f"{name}: samples from {self.low:.4g} to {self.high:.4g}; floats are in [-1, 1], and {MAX_VALUE:g} at "
                "most: scale them (16-bit numbers given as floats: divide by 32768)"
            )


def _audible(samples: np.ndarray, name: str) -> np.ndarray:
    if samples.min() == samples.max():
        raise SampleError(f"{name}: silent, all {len(samples):,} samples are {samples[0]:.4g}; replace or remove it")
    return samples


def _checked_clip(clip: Clip, limits: Limits) -> Clip:
    samples, name = clip.samples, "this clip"
    if not (isinstance(samples, np.ndarray) and samples.ndim == 1 and samples.dtype == np.float32):
        raise SampleError(f"{name} holds {_kind(samples)}; expected float32 [n]; give the array itself")
    limits.check_sound(len(samples), 1, _checked_rate(clip.rate_hz, name), name)
    values = _Values()
    for start in range(0, len(samples), _STRIP):
        values.add(samples[start : start + _STRIP])
    values.check(name)
    _audible(samples, name)
    return clip


def _checked_rate(rate: Any, name: str) -> int | None:
    if rate is None:
        return None
    low, high = RATES_HZ
    number = is_number(rate)
    if not (number and low <= rate <= high and rate == int(rate)):
        shown = rate if number or isinstance(rate, float) else _kind(rate)
        raise SampleError(f"{name}: a rate of {shown}; expected a whole number from {low} to {high} Hz")
    return int(rate)


def _from_path(path: str | os.PathLike[str], limits: Limits) -> Clip:
    with opened(path, "an audio file", limits.check_sound_file) as (file, name):
        data = file.read()
    return _decode(data, name, limits)


def _decode(data: bytes, name: str, limits: Limits) -> Clip:
    if not data:
        raise SampleError(f"{name}: empty (0 bytes); expected an audio file")
    limits.check_sound_file(name, len(data))
    soundfile = _extra("soundfile", "reading audio files")
    try:
        data, allowed = whole_file(data, name)
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, frames = _checked_rate(file.samplerate, name), file.frames
            if allowed is not None and frames not in allowed:
                raise damaged(name, f"{frames:,} frames, expected from {allowed[0]:,} to {allowed[-1]:,}")
            limits.check_sound(frames, file.channels, rate, name)
            # Read in one go: soundfile seeks after each read, and libsndfile's MP3 sounds different after a seek.
            if data[:4] == b"fLaC":
                values = checked_flac(file.read(frames, dtype="int32", always_2d=True), data, name)
            else:
                values = file.read(frames, dtype="float32", always_2d=True)
        if len(values) != frames:
            raise damaged(name, f"{frames:,} frames announced, {len(values):,} decoded")
        return Clip(_mono(values, None, name), rate)
    except SampleError:
        raise
    except Exception as error:  # decoders raise anything on damaged bytes
        raise damaged(name, reason(error)) from None
