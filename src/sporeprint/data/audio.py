"""One sample to mono sound: everything a table, a folder or a list can hold, or a `SampleError` that says why not."""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b, md5
from importlib import import_module
from typing import Any

import numpy as np

from sporeprint.errors import MissingExtra, SampleError

MAX_SAMPLES = 2**27  # frames x channels: half a gigabyte as float32, 46 minutes of mono at 48 kHz
MAX_BYTES = 8 * MAX_SAMPLES + 2**20  # of a file: MAX_SAMPLES as float64, and its header
MAX_VALUE = 1e6  # beyond int16 given as float by a factor of 30; larger is no sound
MAX_CHANNELS = 8  # of an array
RATES_HZ = (1_000, 768_000)
SUFFIXES = frozenset(
    {".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"}
)

_OPEN_SIZES = (0, 0xFFFFFFFF, 0x7FFFF000, 2**63 - 1, 2**64 - 1)  # left in a header by who writes to a pipe; third: SoX
_WAVE_CODES = (1, 3, 6, 7)  # PCM, float, A-law, mu-law
_AIFF_CODES = (*b"NONE sowt twos fl32 FL32 fl64 FL64 in24 in32 alaw ALAW ulaw ULAW".split(), b"raw ")
_MP3_BITRATES = (  # kbit/s of layer III, MPEG 1 and MPEG 2
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_MP3_DELAY = 529  # samples of a decoder's own delay, which mpg123 leaves out
_FLAC_RATES_HZ = dict(
    enumerate((88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000), 1)
)  # codes in a frame's header; 0: as STREAMINFO says; 12 to 14: written out
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_FULL_RANGE = {"int8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}
# What a decoder raises on damaged bytes. soundfile's own errors are RuntimeErrors.
_DECODER_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
)


@dataclass(frozen=True, eq=False)
class Clip:
    """Mono sound.

    samples: float32 [n]. rate_hz: None where an array came without one (it is then at the backbone's rate).
    truncated: set later by a backbone that cuts it.
    """

    samples: np.ndarray
    rate_hz: int | None
    truncated: bool = False


def load_audio(sample: object) -> Clip:
    """`sample` as mono sound, channels averaged, at its own rate.

    sample: a path, encoded bytes, a Hugging Face struct `{"bytes", "path"}` or `{"array", "sampling_rate"}`, a pair
    (array, rate in Hz), a NumPy array or torch tensor, or a `Clip`, which is checked and returned as it is. An array
    is [n], [channels, n] or [n, channels]: the shorter side is the channels, at most 8. int8, int16 and int32 are
    divided by 2^7, 2^15, 2^31; unsigned and 64-bit integers are refused, as their zero or scale is not known. Floats
    are taken as they are, in [-1, 1] or not, up to 10^6 in size.

    Files: WAV, RF64, W64 and AIFF of PCM, float, A-law or mu-law; FLAC; OGG (one Vorbis or Opus stream); MP3.
    A cut is seen in all of them, but for a WAV or AIFF whose header leaves the length open, as a pipe's does, and an
    MP3 without a Xing or Info header cut exactly between two frames. Changed bytes are seen in FLAC and OGG, which
    hold checksums; in WAV, AIFF and MP3 only where the headers contradict each other: changed samples stay samples.

    Raises SampleError, with a reason of one line, for anything that is not whole, audible sound of at most
    `MAX_SAMPLES` values, and MissingExtra where a file is given and soundfile is not installed.
    """
    if isinstance(sample, Mapping):
        sample = _from_struct(sample)
    if isinstance(sample, Clip):
        return _checked_clip(sample)
    if isinstance(sample, tuple):
        return _from_pair(sample)
    if _is_array(sample):
        return _from_array(sample, None)
    if isinstance(sample, (bytes, bytearray, memoryview)):
        return _decode(bytes(sample), "these bytes")
    if isinstance(sample, (str, os.PathLike)):
        return _from_path(sample)
    raise SampleError(
        f"no audio: seen {_kind(sample)}; expected a path, encoded bytes, a struct of bytes and path or of array and "
        "sampling_rate, a pair (array, rate), or an array; check which column holds the audio"
    )


def clip_digest(clip: Clip) -> str:
    """Hex digest (16 bytes) of a clip's rate and samples: the id of a sample that has no other."""
    digest = blake2b(f"{clip.rate_hz} ".encode(), digest_size=16)
    digest.update(clip.samples.astype("<f4").tobytes())
    return digest.hexdigest()


def resample(clip: Clip, rate_hz: int) -> Clip:
    """`clip` at `rate_hz` (soxr, HQ). Samples are unchanged where the rate is already that one, or is not known."""
    if clip.rate_hz is None or clip.rate_hz == rate_hz:
        return replace(clip, rate_hz=rate_hz)
    _check_amount(-(-len(clip.samples) * rate_hz // clip.rate_hz), 1, f"this sound at {rate_hz} Hz")
    soxr = _extra("soxr", "sound at another rate than the backbone's")
    try:
        samples = soxr.resample(clip.samples, clip.rate_hz, rate_hz, quality="HQ")
    except _DECODER_ERRORS as error:
        raise SampleError(f"cannot be resampled from {clip.rate_hz} to {rate_hz} Hz: {_line(error)}") from None
    if not len(samples):
        raise SampleError(
            f"{len(clip.samples)} samples at {clip.rate_hz} Hz are none at {rate_hz} Hz; give a longer clip"
        )
    return replace(clip, samples=np.asarray(samples, dtype=np.float32), rate_hz=rate_hz)


def _extra(package: str, what: str) -> Any:
    try:
        return import_module(package)
    except (ImportError, OSError) as error:  # OSError: soundfile without its libsndfile
        raise MissingExtra(f"{what} needs {package}; pip install 'sporeprint[audio]'") from error


def _kind(value: object) -> str:
    return "null (an empty cell)" if value is None else f"a value of type {type(value).__name__}"


def _line(error: Exception) -> str:
    text = " ".join(str(getattr(error, "error_string", None) or error).split())
    return type(error).__name__ if not text or " at 0x" in text else text[:200]


def _from_struct(sound: Mapping[str, Any]) -> object:
    if sound.get("array") is not None:
        return sound["array"], sound.get("sampling_rate")
    for key in ("bytes", "path"):
        if sound.get(key) is not None:
            return sound[key]
    raise SampleError(f"no audio: seen a struct of {sorted(map(str, sound))} without bytes, path or array; give one")


def _from_pair(pair: tuple[Any, ...]) -> Clip:
    if len(pair) != 2 or not (_is_array(pair[0]) or isinstance(pair[0], list)):
        seen = ", ".join(type(part).__name__ for part in pair[:4])
        raise SampleError(f"no audio: seen a tuple of {len(pair)} ({seen}); expected a pair (array, rate in Hz)")
    return _from_array(*pair)


def _is_array(value: object) -> bool:  # a torch tensor is recognised without importing torch
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "cpu"))


def _from_array(value: Any, rate: Any) -> Clip:
    try:
        if not isinstance(value, (np.ndarray, list)):
            value = value.detach().cpu()
            value = (value.float() if value.is_floating_point() else value).numpy()  # NumPy has no bfloat16
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise SampleError(f"this array cannot be read: {_line(error)}; give a dense one of numbers") from None
    seen = f"an array {list(array.shape)} of {array.dtype}"
    if array.ndim == 2 and array.shape[0] != array.shape[1]:
        array = array if array.shape[0] > array.shape[1] else array.T  # [n, channels]
    elif array.ndim != 1:
        raise SampleError(f"{seen}: expected [n], [channels, n] or [n, channels]; one clip a sample")
    channels = array.shape[1] if array.ndim == 2 else 1
    if channels > MAX_CHANNELS:
        raise SampleError(f"{seen}: {channels} channels, expected at most {MAX_CHANNELS}; give the waveform")
    if array.dtype.kind != "f" and array.dtype.name not in _FULL_RANGE:
        raise SampleError(f"{seen}: expected a float in [-1, 1], int16, int8 or int32; convert it")
    _check_amount(len(array), channels, seen)
    return Clip(_checked(_mono(array) / _FULL_RANGE.get(array.dtype.name, 1.0), seen), _checked_rate(rate, seen))


def _mono(frames: np.ndarray) -> np.ndarray:
    """The mean over the channels of [n] or [n, channels]: [n], float64 where there is something to average."""
    if frames.ndim == 2 and frames.shape[1] > 1:
        return frames.mean(axis=1, dtype=np.float64)
    return frames.reshape(-1)


def _checked_clip(clip: Clip) -> Clip:
    samples, name = clip.samples, "this clip"
    if not (isinstance(samples, np.ndarray) and samples.ndim == 1 and samples.dtype == np.float32):
        raise SampleError(f"{name} holds {_kind(samples)}; expected float32 [n]; give the array itself")
    _check_amount(len(samples), 1, name)
    _checked(samples, name)
    _checked_rate(clip.rate_hz, name)
    return clip


def _check_amount(frames: int, channels: int, name: str) -> None:
    if frames * channels > MAX_SAMPLES:
        raise SampleError(
            f"{name}: {frames:,} frames of {channels} channels, over {MAX_SAMPLES:,} values; cut it into shorter clips"
        )


def _checked_rate(rate: Any, name: str) -> int | None:
    if rate is None:
        return None
    low, high = RATES_HZ
    number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    if not (number and low <= rate <= high and rate == int(rate)):
        seen = rate if number else _kind(rate)
        raise SampleError(f"{name}: a rate of {seen}; expected a whole number from {low} to {high} Hz")
    return int(rate)


def _checked(samples: np.ndarray, name: str) -> np.ndarray:
    """`samples` as float32, where they are sound at all."""
    if not len(samples):
        raise SampleError(f"{name}: zero samples; expected sound; replace or remove it")
    low, high = float(samples.min()), float(samples.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int((~np.isfinite(samples)).sum())
        raise SampleError(f"{name}: {bad:,} of {len(samples):,} samples are NaN or infinite; repair or remove it")
    if max(-low, high) > MAX_VALUE:
        raise SampleError(f"{name}: samples from {low:.4g} to {high:.4g}; expected about [-1, 1]; scale it")
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    if samples.min() == samples.max():
        raise SampleError(f"{name}: silent, all {len(samples):,} samples are {samples[0]:.4g}; replace or remove it")
    return samples


def _from_path(path: str | os.PathLike[str]) -> Clip:
    name = repr(os.path.basename(os.fspath(path)))  # a reason is stored: it must not hold this machine's folders
    if "://" in str(path)[:16]:
        raise SampleError(f"{name} is a web address; sporeprint reads files: download it and give its path")
    try:
        status = os.stat(path)  # before opening: to open a pipe would wait for its writer
        if not stat.S_ISREG(status.st_mode):
            raise SampleError(f"{name} is not a file (a folder, a pipe or a device); give the path of an audio file")
        if status.st_size > MAX_BYTES:
            raise SampleError(f"{name}: {status.st_size:,} bytes, over {MAX_BYTES:,}; cut it into shorter clips")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SampleError(f"there is no file {name}; check the path and the folder that it is relative to") from None
    except (OSError, ValueError, MemoryError) as error:
        if isinstance(error, SampleError):
            raise
        raise SampleError(f"{name} cannot be opened: {getattr(error, 'strerror', None) or _line(error)}") from None
    return _decode(data, name)


def _decode(data: bytes, name: str) -> Clip:
    if not data:
        raise SampleError(f"{name}: empty (0 bytes); expected an audio file")
    soundfile = _extra("soundfile", "reading audio files")
    try:
        data, allowed = _whole_file(data, name)
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, frames = _checked_rate(file.samplerate, name), file.frames
            if allowed is not None and frames not in allowed:
                raise _damaged(name, f"{frames:,} frames, expected from {allowed[0]:,} to {allowed[-1]:,}")
            _check_amount(frames, file.channels, name)
            # In one go: soundfile seeks after each reading, and libsndfile's MP3 sounds different after a seek.
            if data[:4] == b"fLaC":
                values = _checked_flac(file.read(frames, dtype="int32", always_2d=True), data, name)
            else:
                values = file.read(frames, dtype="float32", always_2d=True)
        if len(values) != frames:
            raise _damaged(name, f"{frames:,} frames announced, {len(values):,} decoded")
        samples = _mono(values)
    except SampleError:
        raise
    except _DECODER_ERRORS as error:
        raise _damaged(name, _line(error)) from None
    return Clip(_checked(samples, name), rate)


def _damaged(name: str, seen: str) -> SampleError:
    return SampleError(f"{name}: damaged or cut short ({seen}); replace or remove it")


# What follows asks each container whether it is whole: libsndfile reads a cut file as a shorter one, without a word.


def _whole_file(data: bytes, name: str) -> tuple[bytes, range | None]:
    """`data` as libsndfile reads it whole, and the numbers of frames that the container allows, where it says.

    Raises SampleError where it is no known container, or contradicts itself.
    """
    data = _past_tags(data)
    kind, form = data[:4], data[8:12]
    if (kind in (b"RIFF", b"RIFX", b"RF64") and form == b"WAVE") or (kind == b"riff" and data[24:28] == b"wave"):
        return _whole_wave(data, name)
    if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        return data, _whole_aiff(data, name)
    if kind == b"fLaC":
        return data, _whole_flac(data, name)
    if kind == b"OggS":
        _whole_ogg(data, name)
        return data, None
    if _mp3_frame(data, 0):
        return _whole_mp3(data, name)
    raise SampleError(f"{name}: not audio in a known format (WAV, FLAC, OGG, MP3, AIFF); it starts {data[:16]!r}")


def _past_tags(data: bytes) -> bytes:
    """Without ID3v2 tags and their padding, which may stand before any format."""
    start = 0
    while data[start : start + 3] == b"ID3" and len(data) >= start + 10:
        size = sum(
            (byte & 127) << shift for byte, shift in zip(data[start + 6 : start + 10], (21, 14, 7, 0), strict=True)
        )
        start += 10 + size + (10 if data[start + 5] & 16 else 0)
        if start >= len(data):
            return data
    return data[start:].lstrip(b"\0") if start else data


def _exactly(frames: int) -> range:
    return range(frames, frames + 1)


def _chunks(data: bytes, name: str, sound: bytes) -> dict[bytes, tuple[int, int]]:
    """Start and size in bytes of the chunks of a RIFF, RF64, W64 or AIFF file; the size of `sound` is -1 where open.

    Sizes lead from chunk to chunk, up to the end: a changed size lands on bytes that are no chunk.
    """
    wide = data[:4] == b"riff"  # W64: ids are of 16 bytes, sizes of 8 and with the head in them
    number = struct.Struct("<Q" if wide else ">I" if data[:4] in (b"RIFX", b"FORM") else "<I")
    position, head, alignment = (40, 24, 8) if wide else (12, 8, 2)
    end = number.unpack_from(data, head - number.size)[0] + (0 if wide else 8)
    found: dict[bytes, tuple[int, int]] = {}
    while position < len(data) and not (sound in found and position >= end):
        kind, rest = data[position : position + 4], data[position : position + head]
        if len(rest) < head or not all(32 <= byte < 127 for byte in kind):
            if sound in found and not any(data[position:]):  # padding
                break
            raise _damaged(name, f"no chunk where one should start, at byte {position:,} of {len(data):,}")
        start, size = position + head, number.unpack_from(data, position + head - number.size)[0]
        if kind == sound:
            if data[:4] == b"RF64" and size == 0xFFFFFFFF and b"ds64" in found:
                size = struct.unpack_from("<Q", data, found[b"ds64"][0] + 8)[0]
            elif size in _OPEN_SIZES and (size or (start < len(data) and end != start)):
                found[kind] = (start, -1)
                break
        size -= head if wide else 0
        if size < 0 or size > len(data) - start:
            raise _damaged(name, f"chunk {kind!r} should have {size:,} bytes, {len(data) - start:,} are there")
        found.setdefault(kind, (start, size))
        position = start + size + -size % alignment
        if any(data[start + size : position]):
            raise _damaged(name, f"chunk {kind!r} of {size:,} bytes goes on beyond its end")
    return found


def _whole_wave(data: bytes, name: str) -> tuple[bytes, range]:
    found = _chunks(data, name, b"data")
    if b"data" not in found or found.get(b"fmt ", (0, 0))[1] < 16:
        raise _damaged(name, f"chunks {sorted(found)}, expected 'fmt ' and 'data'")
    order = ">" if data[:4] == b"RIFX" else "<"
    at, size = found[b"fmt "]
    code, channels, rate, byte_rate, frame_bytes, bits = struct.unpack_from(order + "HHIIHH", data, at)
    if code == 0xFFFE and size >= 26:  # WAVEX: the code begins its subformat
        (code,) = struct.unpack_from(order + "H", data, at + 24)
    if code not in _WAVE_CODES:
        raise SampleError(f"{name}: WAV with codec {code:#x}; expected PCM, float, A-law or mu-law; convert it")
    start, size = found[b"data"]
    if size < 0:  # libsndfile takes an open size of 0 for no sound
        size = (len(data) - start) // max(1, frame_bytes) * frame_bytes
        if data[:4] != b"riff":
            data = data[: start - 4] + struct.pack(order + "I", size) + data[start:]
    if not frame_bytes or frame_bytes != channels * -(-bits // 8) or byte_rate not in (0, rate * frame_bytes):
        raise _damaged(name, f"{channels} channels of {bits} bits at {rate} Hz: not {frame_bytes} bytes a frame")
    if size % frame_bytes:
        raise _damaged(name, f"{size:,} bytes of sound are not whole frames of {frame_bytes}")
    return data, _exactly(size // frame_bytes)


def _whole_aiff(data: bytes, name: str) -> range | None:
    found = _chunks(data, name, b"SSND")
    at, size = found.get(b"COMM", (0, 0))
    packed = data[8:12] == b"AIFC"
    if b"SSND" not in found or size < (22 if packed else 18):
        raise _damaged(name, f"chunks {sorted(found)}, expected 'COMM' and 'SSND'")
    code = data[at + 18 : at + 22] if packed else b"NONE"
    if code not in _AIFF_CODES:
        raise SampleError(f"{name}: AIFF with codec {code!r}; expected PCM, float, A-law or mu-law; convert it")
    frames: int = struct.unpack_from(">I", data, at + 2)[0]
    return None if frames in _OPEN_SIZES and found[b"SSND"][1] < 0 else _exactly(frames)


def _whole_flac(data: bytes, name: str) -> range:
    """Frames of STREAMINFO, which is as the first frame says; every frame's own checksum is the decoder's affair."""
    if len(data) < 42:
        raise _damaged(name, f"{len(data)} bytes, less than a FLAC header")
    frames = int.from_bytes(data[21:26], "big") & 0xFFFFFFFFF
    if not frames:
        raise SampleError(
            f"{name}: its header leaves the length open, as a pipe's does, so that a cut could not be seen; "
            "write it anew from file to file"
        )
    last, position = 0, 4
    while not last and position < len(data):
        last, size = data[position] & 128, int.from_bytes(data[position + 1 : position + 4], "big")
        position += 4 + size
    head, rate_hz = data[position : position + 4], int.from_bytes(data[18:21], "big") >> 4
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xFC != 0xF8:
        raise _damaged(name, "no sound after its header")
    if _FLAC_RATES_HZ.get(head[2] & 15, rate_hz) != rate_hz:
        raise _damaged(name, f"{rate_hz} Hz in its header, {_FLAC_RATES_HZ[head[2] & 15]} Hz in its first frame")
    return _exactly(frames)


def _checked_flac(values: np.ndarray, data: bytes, name: str) -> np.ndarray:
    """`values` (int32 [n, channels], full range) as float32 in [-1, 1], where they are as STREAMINFO's MD5 says."""
    bits = (int.from_bytes(data[20:22], "big") >> 4 & 31) + 1
    stored = (values >> (32 - bits)).astype("<i4").view(np.uint8).reshape(-1, 4)[:, : -(-bits // 8)]
    if any(data[26:42]) and md5(stored.tobytes(), usedforsecurity=False).digest() != data[26:42]:
        raise _damaged(name, "the sound is not as the checksum in its header says")
    return values.astype(np.float32) / np.float32(2**31)


def _whole_ogg(data: bytes, name: str) -> None:
    """Every page is there, in sequence, as its checksum says, and the last one is marked as the last."""
    position, count, flags, first = 0, 0, 0, 0
    while data[position : position + 4] == b"OggS" or not flags & 4:
        if len(data) < position + 27:
            raise _damaged(name, f"no end-of-stream page; {count} whole pages are there")
        flags = data[position + 5]
        serial, sequence, checksum, segments = struct.unpack_from("<IIIB", data, position + 14)
        body = position + 27 + segments
        page = data[position : body + sum(data[position + 27 : body])]
        # OGG's CRC takes the highest bit first and starts from 0: zlib's, of the bytes with their bits reversed.
        mirrored = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
        seen = int(f"{zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)
        if seen != checksum:
            raise _damaged(name, f"page {count} is not as its checksum says")
        first = first if count else serial
        if serial != first:
            raise SampleError(f"{name}: several OGG streams in one; expected one; take the sound out of it")
        if sequence != count:
            raise _damaged(name, f"page {count} is missing")
        position, count = position + len(page), count + 1


def _whole_mp3(data: bytes, name: str) -> tuple[bytes, range]:
    """Whole frames of one kind from the first byte to the tags, as many as the Xing or Info header says, if any.

    Without one, libsndfile guesses the length from the first frame's bit rate, and cuts what is beyond: it gets one.
    """
    position, count, kind = 0, 0, _mp3_kind(data)
    while size := _mp3_frame(data, position):
        if _mp3_kind(data[position : position + 4]) != kind:
            raise _damaged(name, f"frame {count} is of another kind than the first")
        position, count = position + size, count + 1
    rest = data[position:]
    if position > len(data):
        raise _damaged(name, f"the last {position - len(data)} bytes of its {count} frames are not there")
    if not rest.startswith((b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")) and any(rest):
        raise _damaged(name, f"{count} whole frames, then {len(rest):,} bytes that are none")
    mpeg1, mono, length = data[1] & 8, data[3] >= 192, 1152 if data[1] & 8 else 576
    at = 4 + ((17 if mono else 32) if mpeg1 else (9 if mono else 17)) + (0 if data[1] & 1 else 2)
    trimmed = _MP3_DELAY
    named, tagged = data[at : at + 4] in (b"Xing", b"Info"), data[at + 120 : at + 124] in (b"LAME", b"Lavc", b"Lavf")
    if tagged and not (named and data[at + 7] & 15 == 15):
        raise _damaged(name, "its Xing or Info header cannot be read")
    if named and data[at + 7] & 1:
        count, announced = count - 1, int.from_bytes(data[at + 8 : at + 12], "big")  # its own frame is not counted
        if count != announced:
            raise _damaged(name, f"{announced:,} frames announced, {count:,} there")
        if data[at + 7] == 15:  # then the encoder's delay and padding are at a fixed place
            gaps = int.from_bytes(data[at + 141 : at + 144], "big")
            trimmed = max(trimmed, (gaps >> 12) + (gaps & 0xFFF))
    else:
        if named or data[36:40] == b"VBRI":
            data, count = data[_mp3_frame(data, 0) :], count - 1
        head = bytes((*data[:2], data[2] & 0x0F | 0xE0, data[3]))  # the highest bit rate has room for the header
        info = head + bytes(at - 4) + struct.pack(">4sII", b"Xing", 1, count)
        data = info.ljust(_mp3_frame(head, 0), b"\0") + data
    return data, range(max(0, count * length - trimmed), count * length + 1)


def _mp3_kind(data: bytes) -> tuple[int, int, bool]:
    """What the header of every frame of a file has in common: version, layer, protection; rate; mono or not."""
    return data[1], data[2] & 12, data[3] >= 192


def _mp3_frame(data: bytes, position: int) -> int:
    """Bytes of the MPEG layer III frame whose header is at `position`; 0 where there is none (ISO 11172-3, 2.4.2.3)."""
    head = data[position : position + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, rate, bitrate = head[1] >> 3 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or rate == 3 or bitrate in (0, 15):
        return 0
    rate_hz = (44100, 48000, 32000)[rate] >> (0, 1, 2)[3 - version if version else 2]
    slots, bitrates = (144_000, _MP3_BITRATES[0]) if version == 3 else (72_000, _MP3_BITRATES[1])
    return slots * bitrates[bitrate - 1] // rate_hz + (head[2] >> 1 & 1)
