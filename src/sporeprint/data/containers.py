"""Check that the container of an audio file is whole: libsndfile silently reads a truncated file as a shorter one."""

from __future__ import annotations

import struct
import zlib
from hashlib import md5

import numpy as np

from sporeprint.data.signatures import SIGNATURE_BYTES, looks_like
from sporeprint.errors import SampleError

_OPEN_SIZES = (0, 0xFFFFFFFF, 0x7FFFF000, 2**63 - 1, 2**64 - 1)  # left in a header written to a pipe; third: SoX
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
_KNOWN_CHUNKS = (b"fmt ", *b"data fact LIST JUNK bext smpl PEAK ds64 COMM SSND NAME ANNO MARK INST".split())
_STRIP = 2**20  # frames that are converted at once
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def damaged(name: str, problem: str) -> SampleError:
    """Return the error of a file that is not whole."""
    return SampleError(f"{name}: damaged or cut short ({problem}); replace or remove it")


def whole_file(data: bytes, name: str) -> tuple[bytes, range | None]:
    """Return `data` as libsndfile reads it whole, and the numbers of frames that the container allows, where it says.

    Raises SampleError where the container is not a known one, or contradicts itself.
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
    seen = looks_like(data[:SIGNATURE_BYTES])
    raise SampleError(f"{name}: not audio in a known format (WAV, FLAC, OGG, MP3, AIFF); it looks like {seen}")


def _past_tags(data: bytes) -> bytes:
    """Strip ID3v2 tags and their padding, which may stand before any format."""
    start = 0
    while data[start : start + 3] == b"ID3" and len(data) >= start + 10:
        size = sum(
            (byte & 127) << shift for byte, shift in zip(data[start + 6 : start + 10], (21, 14, 7, 0), strict=True)
        )
        start += 10 + size + (10 if data[start + 5] & 16 else 0)
        if start >= len(data):
            return data
    return data[start:].lstrip(b"\0") if start else data


def _chunk_name(kind: bytes) -> str:
    return f"chunk '{kind.decode()}'" if kind in _KNOWN_CHUNKS else "a chunk"


def _exactly(frames: int) -> range:
    return range(frames, frames + 1)


def _chunks(data: bytes, name: str, sound: bytes) -> dict[bytes, tuple[int, int]]:
    """Return start and size in bytes of the chunks of a RIFF, RF64, W64 or AIFF file; an open size of `sound` is -1.

    Sizes lead from chunk to chunk, up to the end: a changed size lands on bytes that are not a chunk.
    """
    wide = data[:4] == b"riff"  # W64: ids have 16 bytes, sizes 8, and they count the head
    number = struct.Struct("<Q" if wide else ">I" if data[:4] in (b"RIFX", b"FORM") else "<I")
    position, head, alignment = (40, 24, 8) if wide else (12, 8, 2)
    end = number.unpack_from(data, head - number.size)[0] + (0 if wide else 8)
    chunks: dict[bytes, tuple[int, int]] = {}
    while position < len(data) and not (sound in chunks and position >= end):
        kind, rest = data[position : position + 4], data[position : position + head]
        if len(rest) < head or not all(32 <= byte < 127 for byte in kind):
            if sound in chunks and not any(data[position:]):  # padding
                break
            raise damaged(name, f"no chunk where one should start, at byte {position:,} of {len(data):,}")
        start, size = position + head, number.unpack_from(data, position + head - number.size)[0]
        if kind == sound:
            if data[:4] == b"RF64" and size == 0xFFFFFFFF and b"ds64" in chunks:
                size = struct.unpack_from("<Q", data, chunks[b"ds64"][0] + 8)[0]
            elif size in _OPEN_SIZES and (size or (start < len(data) and end != start)):
                chunks[kind] = (start, -1)
                break
        size -= head if wide else 0
        if size < 0 or size > len(data) - start:
            raise damaged(name, f"{_chunk_name(kind)} should have {size:,} bytes, {len(data) - start:,} are there")
        chunks.setdefault(kind, (start, size))
        position = start + size + -size % alignment
        if any(data[start + size : position]):
            raise damaged(name, f"{_chunk_name(kind)} of {size:,} bytes goes on beyond its end")
    return chunks


def _whole_wave(data: bytes, name: str) -> tuple[bytes, range]:
    chunks = _chunks(data, name, b"data")
    if b"data" not in chunks or chunks.get(b"fmt ", (0, 0))[1] < 16:
        raise damaged(name, "expected the chunks 'fmt ' and 'data'")
    order = ">" if data[:4] == b"RIFX" else "<"
    at, size = chunks[b"fmt "]
    code, channels, rate, byte_rate, frame_bytes, bits = struct.unpack_from(order + "HHIIHH", data, at)
    if code == 0xFFFE and size >= 26:  # WAVEX: the code begins its subformat
        (code,) = struct.unpack_from(order + "H", data, at + 24)
    if code not in _WAVE_CODES:
        raise SampleError(f"{name}: WAV with codec {code:#x}; expected PCM, float, A-law or mu-law; convert it")
    start, size = chunks[b"data"]
    if size < 0:  # libsndfile takes an open size of 0 for no sound
        size = (len(data) - start) // max(1, frame_bytes) * frame_bytes
        if data[:4] != b"riff":
            data = data[: start - 4] + struct.pack(order + "I", size) + data[start:]
    if not frame_bytes or frame_bytes != channels * -(-bits // 8) or byte_rate not in (0, rate * frame_bytes):
        raise damaged(name, f"{channels} channels of {bits} bits at {rate} Hz: not {frame_bytes} bytes a frame")
    if size % frame_bytes:
        raise damaged(name, f"{size:,} bytes of sound are not whole frames of {frame_bytes}")
    return data, _exactly(size // frame_bytes)


def _whole_aiff(data: bytes, name: str) -> range | None:
    chunks = _chunks(data, name, b"SSND")
    at, size = chunks.get(b"COMM", (0, 0))
    packed = data[8:12] == b"AIFC"
    if b"SSND" not in chunks or size < (22 if packed else 18):
        raise damaged(name, "expected the chunks 'COMM' and 'SSND'")
    code = data[at + 18 : at + 22] if packed else b"NONE"
    if code not in _AIFF_CODES:
        raise SampleError(f"{name}: compressed AIFF; expected PCM, float, A-law or mu-law; convert it")
    frames: int = struct.unpack_from(">I", data, at + 2)[0]
    return None if frames in _OPEN_SIZES and chunks[b"SSND"][1] < 0 else _exactly(frames)


def _whole_flac(data: bytes, name: str) -> range:
    """Return STREAMINFO's number of frames, checked against the first frame; the decoder checks the checksums."""
    if len(data) < 42:
        raise damaged(name, f"{len(data)} bytes, less than a FLAC header")
    frames = int.from_bytes(data[21:26], "big") & 0xFFFFFFFFF
    if not frames:
        raise SampleError(
            f"{name}: its header leaves the length open, as a pipe's does, so a truncated file would go unnoticed; "
            "write it again, to a file"
        )
    last, position = 0, 4
    while not last and position < len(data):
        last, size = data[position] & 128, int.from_bytes(data[position + 1 : position + 4], "big")
        position += 4 + size
    head, rate_hz = data[position : position + 4], int.from_bytes(data[18:21], "big") >> 4
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xFC != 0xF8:
        raise damaged(name, "no sound after its header")
    if _FLAC_RATES_HZ.get(head[2] & 15, rate_hz) != rate_hz:
        raise damaged(name, f"{rate_hz} Hz in its header, {_FLAC_RATES_HZ[head[2] & 15]} Hz in its first frame")
    return _exactly(frames)


def checked_flac(values: np.ndarray, data: bytes, name: str) -> np.ndarray:
    """Turn `values` (int32 [n, channels], full range) into float32 in [-1, 1], in place; check STREAMINFO's MD5."""
    bits = (int.from_bytes(data[20:22], "big") >> 4 & 31) + 1
    checksum, floats = md5(usedforsecurity=False), values.view(np.float32)
    for start in range(0, len(values), _STRIP):
        strip = values[start : start + _STRIP]
        stored = (strip >> (32 - bits)).astype("<i4").view(np.uint8).reshape(-1, 4)[:, : -(-bits // 8)]
        checksum.update(stored.tobytes())
        floats[start : start + _STRIP] = strip.astype(np.float32) / np.float32(2**31)
    if any(data[26:42]) and checksum.digest() != data[26:42]:
        raise damaged(name, "the sound does not match the checksum in its header")
    return floats


def _whole_ogg(data: bytes, name: str) -> None:
    """Check that every page is there, in sequence, with a correct checksum, and that the last is marked as the last."""
    position, count, flags, first = 0, 0, 0, 0
    while data[position : position + 4] == b"OggS" or not flags & 4:
        if len(data) < position + 27:
            raise damaged(name, f"no end-of-stream page; {count} whole pages are there")
        flags = data[position + 5]
        serial, sequence, checksum, segments = struct.unpack_from("<IIIB", data, position + 14)
        body = position + 27 + segments
        page = data[position : body + sum(data[position + 27 : body])]
        # OGG's CRC takes the highest bit first and starts from 0: zlib's, of the bytes with their bits reversed.
        mirrored = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
        actual = int(f"{zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)
        if actual != checksum:
            raise damaged(name, f"page {count} does not match its checksum")
        first = first if count else serial
        if serial != first:
            raise SampleError(f"{name}: several OGG streams in one; expected one; take the sound out of it")
        if sequence != count:
            raise damaged(name, f"page {count} is missing")
        position, count = position + len(page), count + 1


def _whole_mp3(data: bytes, name: str) -> tuple[bytes, range]:
    """Check for whole frames of one kind from the first byte to the tags, as many as a Xing or Info header says.

    Without one, libsndfile guesses the length from the first bit rate and cuts what is beyond, so one is added.
    """
    position, count, kind = 0, 0, _mp3_kind(data)
    while size := _mp3_frame(data, position):
        if _mp3_kind(data[position : position + 4]) != kind:
            raise damaged(name, f"frame {count} is of another kind than the first")
        position, count = position + size, count + 1
    rest = data[position:]
    if position > len(data):
        raise damaged(name, f"the last {position - len(data)} bytes of its {count} frames are not there")
    if not rest.startswith((b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")) and any(rest):
        raise damaged(name, f"{count} whole frames, then {len(rest):,} bytes that are not frames")
    mpeg1, mono, length = data[1] & 8, data[3] >= 192, 1152 if data[1] & 8 else 576
    at = 4 + ((17 if mono else 32) if mpeg1 else (9 if mono else 17)) + (0 if data[1] & 1 else 2)
    trimmed = _MP3_DELAY
    named, tagged = data[at : at + 4] in (b"Xing", b"Info"), data[at + 120 : at + 124] in (b"LAME", b"Lavc", b"Lavf")
    if tagged and not (named and data[at + 7] & 15 == 15):
        raise damaged(name, "its Xing or Info header cannot be read")
    if named and data[at + 7] & 1:
        count, announced = count - 1, int.from_bytes(data[at + 8 : at + 12], "big")  # its own frame is not counted
        if count != announced:
            raise damaged(name, f"{announced:,} frames announced, {count:,} there")
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
    """Return what the headers of a file's frames have in common: version, layer, protection; rate; mono or not."""
    return data[1], data[2] & 12, data[3] >= 192


def _mp3_frame(data: bytes, position: int) -> int:
    """Return the bytes of the MPEG layer III frame with a header at `position`; 0 for none (ISO 11172-3, 2.4.2.3)."""
    head = data[position : position + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, rate, bitrate = head[1] >> 3 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or rate == 3 or bitrate in (0, 15):
        return 0
    rate_hz = (44100, 48000, 32000)[rate] >> (0, 1, 2)[3 - version if version else 2]
    slots, bitrates = (144_000, _MP3_BITRATES[0]) if version == 3 else (72_000, _MP3_BITRATES[1])
    return slots * bitrates[bitrate - 1] // rate_hz + (head[2] >> 1 & 1)
