import io
import os
import random
import struct
import sys
import wave

import numpy as np
import pytest

from sporeprint.data.audio import SUFFIXES, Clip, clip_digest, load_audio, resample
from sporeprint.data.limits import Limits
from sporeprint.errors import MissingExtra, SampleError

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

RATE_HZ = 16_000
SECONDS = np.arange(6000) / RATE_HZ
SWEEP = (0.5 * np.sin(2 * np.pi * (100 + 4000 * SECONDS) * SECONDS)).astype(np.float32)

KINDS = {  # the root mean square error that each codec may make on SWEEP, whose own is 0.35
    ("WAV", "PCM_U8"): 0.01,
    ("WAV", "PCM_16"): 1e-4,
    ("WAV", "PCM_24"): 1e-6,
    ("WAV", "PCM_32"): 1e-7,
    ("WAV", "FLOAT"): 0,
    ("WAV", "ULAW"): 0.03,
    ("WAVEX", "PCM_16"): 1e-4,
    ("WAVEX", "DOUBLE"): 0,
    ("RF64", "PCM_16"): 1e-4,
    ("W64", "PCM_16"): 1e-4,
    ("AIFF", "PCM_16"): 1e-4,
    ("AIFF", "PCM_S8"): 0.01,
    ("AIFF", "FLOAT"): 0,
    ("AIFF", "ALAW"): 0.03,
    ("FLAC", "PCM_S8"): 0.01,
    ("FLAC", "PCM_16"): 1e-4,
    ("FLAC", "PCM_24"): 1e-6,
    ("OGG", "VORBIS"): 0.1,
    ("OGG", "OPUS"): 0.2,
    ("MP3", "MPEG_LAYER_III"): 0.1,
}


def encode(kind="WAV", subtype="PCM_16", samples=SWEEP, rate_hz=RATE_HZ, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=kind, subtype=subtype, **options)
    return buffer.getvalue()


def wave_bytes(frames, channels=1, rate_hz=8000):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.asarray(frames, "<i2").tobytes())
    return buffer.getvalue()


def with_bytes(data, position, new):
    return data[:position] + new + data[position + len(new) :]


def reason(sample, **limits):
    with pytest.raises(SampleError) as caught:
        load_audio(sample, Limits(**limits))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_every_format_gives_its_sound_in_mono(kind, subtype):
    for samples in (SWEEP, np.stack([SWEEP, 0.5 * SWEEP], axis=1)):
        expected = samples if samples.ndim == 1 else samples.astype(np.float64).mean(axis=1)
        clip = load_audio(encode(kind, subtype, samples))
        assert (clip.samples.dtype, clip.samples.shape, clip.rate_hz) == (np.float32, SWEEP.shape, RATE_HZ)
        assert np.sqrt(np.mean((clip.samples - expected) ** 2)) <= KINDS[kind, subtype] + 1e-7


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_a_cut_file_is_refused_wherever_it_is_cut(kind, subtype):
    data = encode(kind, subtype)
    chance = random.Random(0)
    cuts = [*range(1, 150), *(chance.randrange(150, len(data)) for _ in range(60)), *range(len(data) - 40, len(data))]
    for cut in cuts:
        assert reason(data[:cut])


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_changed_bytes_are_refused_or_leave_the_length_right(kind, subtype):
    data = encode(kind, subtype)
    whole = load_audio(data).samples
    chance = random.Random(1)
    first = 300 if kind == "MP3" else 0  # its first frame is a header, which the next test changes
    refused = 0
    for number in range(100):
        position = chance.randrange(first, len(data) if number % 2 else first + 100)
        changed = data[position] ^ (1 << chance.randrange(8) if number % 3 else chance.randrange(1, 256))
        try:
            samples = load_audio(with_bytes(data, position, bytes([changed]))).samples
        except SampleError:
            refused += 1
        else:
            assert len(samples) == len(whole), (position, data[position], changed)
            if kind in ("FLAC", "OGG"):
                np.testing.assert_array_equal(samples, whole)
    assert refused


def test_an_mp3_is_as_long_as_its_frames_with_and_without_a_header():
    data = encode("MP3", "MPEG_LAYER_III", np.tile(SWEEP, 5))
    at = data.index(b"Xing")
    (frames,) = struct.unpack_from(">I", data, at + 8)
    size = data.index(data[:2], 4)
    assert len(load_audio(data).samples) == 5 * len(SWEEP)
    assert len(load_audio(data[size:]).samples) == frames * 576 - 529  # variable bit rate; 529: the decoder's delay
    assert len(load_audio(b"ID3\4\0\0\0\0\0\5hello\0\0" + data + b"TAG" + bytes(125)).samples) == 5 * len(SWEEP)
    for other in (frames - 1, frames + 1):
        assert "frames announced" in reason(with_bytes(data, at + 8, struct.pack(">I", other)))
    assert "header cannot be read" in reason(with_bytes(data, at, b"Xin_"))
    assert "header cannot be read" in reason(with_bytes(data, at + 4, struct.pack(">I", 14)))
    assert "bytes that are not frames" in reason(data + b"and more")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_page_that_is_changed_or_missing_is_named(subtype):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 20 * RATE_HZ)
    data = encode("OGG", subtype, noise)
    starts = [at for at in range(len(data)) if data.startswith(b"OggS", at)]
    assert len(starts) > 6
    middle, following = starts[4:6]
    position = (middle + following) // 2
    changed = with_bytes(data, position, bytes([data[position] ^ 1]))
    assert "page 4 does not match its checksum" in reason(changed)
    assert "page 4 is missing" in reason(data[:middle] + data[following:])
    assert len(load_audio(data).samples) == 20 * RATE_HZ


@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_a_size_left_open_by_a_pipe_is_no_cut(kind):
    data = encode(kind)
    at = data.index(b"data") + 4
    expected = load_audio(data).samples
    for mark in (0, 0xFFFFFFFF, 0x7FFFF000):
        size = struct.pack("<I", mark)
        for changed in (with_bytes(data, at, size), with_bytes(with_bytes(data, 4, size), at, size)):
            np.testing.assert_array_equal(load_audio(changed).samples, expected)
    assert "zero samples" in reason(wave_bytes([]))
    flac = encode("FLAC")
    assert "leaves the length open" in reason(with_bytes(flac, 21, bytes([flac[21] & 0xF0, 0, 0, 0, 0])))


def test_chunks_beside_the_sound_are_passed_over():
    data = wave_bytes([1, 2, 3])
    note, odd = b"LIST\4\0\0\0note", b"odd \3\0\0\0abc\0"
    for changed in (data[:12] + odd + data[12:], data + note, data + odd, data + odd[:-1], data + bytes(5)):
        assert load_audio(changed).samples.tolist() == [1 / 32768, 2 / 32768, 3 / 32768]
    longer = with_bytes(data, 4, struct.pack("<I", len(data) + len(note) - 8))
    assert load_audio(longer + note).samples.tolist() == load_audio(data).samples.tolist()
    assert "chunk 'LIST' should have 4 bytes, 3 are there" in reason(longer + note[:-1])
    assert "no chunk where one should start" in reason(longer + bytes(range(12)))
    assert load_audio(encode(endian="BIG")).samples.tolist() == load_audio(encode()).samples.tolist()


def test_a_header_that_contradicts_itself_is_refused():
    data = wave_bytes([1, 2, 3, 4], channels=2)
    for position, new in ((22, b"\1"), (24, b"\x80"), (32, b"\2"), (34, b"\x08"), (40, b"\4"), (40, b"\7")):
        assert "damaged" in reason(with_bytes(data, position, new))
    flac = encode("FLAC")
    assert "17024 Hz in its header, 16000 Hz in its first" in reason(
        with_bytes(flac, 18, (17024 << 4).to_bytes(3, "big")[:2])
    )


def test_a_flac_that_announces_less_than_it_holds_is_refused():
    for subtype in ("PCM_S8", "PCM_16", "PCM_24"):
        flac = encode("FLAC", subtype, np.stack([SWEEP, -0.5 * SWEEP], axis=1))
        shorter = with_bytes(flac, 22, struct.pack(">I", 5990))
        assert "does not match the checksum in its header" in reason(shorter)
        assert len(load_audio(with_bytes(shorter, 26, bytes(16))).samples) == 5990  # an encoder may leave it out


def test_stereo_is_averaged_and_sixteen_bits_are_divided_by_two_to_the_fifteenth():
    frames = [[16384, -16384], [32767, 1], [-32768, -32768], [3, 0]]
    expected = [0.0, 0.5, -1.0, 1.5 / 32768]
    array = np.array(frames, np.int16)
    for sample in (wave_bytes(frames, channels=2), array, np.tile(array.T, 1), (array, 8000)):
        assert load_audio(sample).samples.tolist() == expected
    assert load_audio(np.array([-32768, 0, 16384], np.int16)).samples.tolist() == [-1.0, 0.0, 0.5]
    assert load_audio(np.array([-128, 64], np.int8)).samples.tolist() == [-1.0, 0.5]
    assert load_audio(np.array([-(2**31), 2**29], np.int32)).samples.tolist() == [-1.0, 0.25]


@pytest.mark.parametrize(
    ("kind", "subtype", "error"),
    [("WAV", "PCM_16", 1e-4), ("WAV", "FLOAT", 0), ("FLAC", "PCM_24", 1e-6), ("OGG", "VORBIS", 0.02)],
)
def test_six_channels_count_alike(kind, subtype, error):
    channels = [0.3 * np.sin(2 * np.pi * (200 + 150 * channel) * SECONDS) for channel in range(6)]
    clip = load_audio(encode(kind, subtype, np.stack(channels, axis=1)))
    spectrum = np.abs(np.fft.rfft(clip.samples)) * 2 / len(SECONDS)
    assert np.sqrt(np.mean((clip.samples - sum(channels) / 6) ** 2)) <= error + 1e-7
    for channel in range(6):  # 0.375 s: bin k is k / 0.375 Hz
        assert spectrum[round((200 + 150 * channel) * 0.375)] == pytest.approx(0.05, abs=0.02 + error)


def test_sixteen_bit_wav_is_as_the_standard_library_reads_it():
    data = encode("WAV", "PCM_16")
    with wave.open(io.BytesIO(data)) as file:
        integers = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    np.testing.assert_array_equal(load_audio(data).samples, (integers / 32768).astype(np.float32))


def test_every_kind_of_sample_gives_the_same_sound(tmp_path):
    torch = pytest.importorskip("torch")
    data = encode("WAV", "FLOAT")
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    known = [
        data,
        bytearray(data),
        memoryview(data),
        path,
        str(path),
        (SWEEP, RATE_HZ),
        (torch.from_numpy(SWEEP), 16e3),
    ]
    known += [{"bytes": data, "path": None}, {"bytes": data, "path": "gone.wav"}, {"bytes": None, "path": str(path)}]
    known += [{"array": SWEEP, "sampling_rate": RATE_HZ, "path": "gone.wav"}]
    known += [{"array": SWEEP.tolist(), "sampling_rate": np.int64(RATE_HZ)}]
    unknown = [SWEEP, SWEEP[None], SWEEP[:, None], np.stack([SWEEP] * 8), SWEEP.astype(np.float64)]
    unknown += [torch.from_numpy(SWEEP).requires_grad_()[None]]
    for sample, rate_hz in [(sample, RATE_HZ) for sample in known] + [(sample, None) for sample in unknown]:
        clip = load_audio(sample)
        np.testing.assert_array_equal(clip.samples, SWEEP)
        assert (clip.rate_hz, clip.truncated, clip.samples.dtype) == (rate_hz, False, np.float32)
    clip = Clip(SWEEP, None, truncated=True)
    assert load_audio(clip) is clip
    assert load_audio(torch.tensor([0.5, -1.0], dtype=torch.bfloat16)).samples.tolist() == [0.5, -1.0]


def test_the_digest_is_of_rate_and_samples():
    digests = [
        clip_digest(clip)
        for clip in (
            Clip(SWEEP, 8000),
            Clip(SWEEP, 16000),
            Clip(SWEEP, None),
            Clip(-SWEEP, 8000),
            Clip(SWEEP[1:], 8000),
        )
    ]
    assert len(set(digests)) == 5
    assert all(len(digest) == 32 and int(digest, 16) for digest in digests)
    assert clip_digest(Clip(SWEEP.copy(), 8000, truncated=True)) == digests[0]
    assert clip_digest(Clip(np.repeat(SWEEP, 2)[::2], 8000)) == digests[0]


def test_a_tone_keeps_its_pitch_and_loudness_at_another_rate():
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)).astype(np.float32)
    clip = resample(Clip(tone, 8000, truncated=True), 16000)
    assert (len(clip.samples), clip.samples.dtype, clip.rate_hz, clip.truncated) == (16000, np.float32, 16000, True)
    spectrum = np.abs(np.fft.rfft(clip.samples)) * 2 / 16000  # one second: bin k is k Hz, and its height the amplitude
    assert spectrum.argmax() == 440
    assert abs(spectrum[440] - 0.5) < 0.005
    np.testing.assert_array_equal(resample(Clip(tone, 8000), 16000).samples, clip.samples)


def test_what_a_lower_rate_cannot_hold_is_gone_and_not_folded_back():
    time = np.arange(44_100) / 44_100
    sound = (0.4 * np.sin(2 * np.pi * 1_000 * time) + 0.4 * np.sin(2 * np.pi * 9_000 * time)).astype(np.float32)
    clip = resample(Clip(sound, 44_100), 16_000)
    assert len(clip.samples) == 16_000
    spectrum = np.abs(np.fft.rfft(clip.samples)) * 2 / 16_000
    assert abs(spectrum[1_000] - 0.4) < 0.004
    assert spectrum[7_000] < 1e-3  # where 9 kHz would be heard
    assert np.delete(spectrum, 1_000)[50:-50].max() < 0.01


def test_resampling_to_the_same_or_from_no_rate_changes_no_sample():
    for rate_hz in (None, 16000):
        clip = resample(Clip(SWEEP, rate_hz), 16000)
        assert clip.samples is SWEEP
        assert clip.rate_hz == 16000
    with pytest.raises(SampleError, match="none at 1000 Hz"):
        resample(Clip(SWEEP[:2], 768_000), 1000)


def test_reading_twice_gives_the_same_bits():
    for kind, subtype in KINDS:
        data = encode(kind, subtype)
        assert clip_digest(load_audio(data)) == clip_digest(load_audio(data))


def test_without_the_extra_a_file_names_the_install_line_and_an_array_is_read(monkeypatch):
    data = encode()
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(MissingExtra, match=r"soundfile; pip install 'sporeprint\[audio\]'"):
        load_audio(data)
    with pytest.raises(MissingExtra, match=r"soxr; pip install 'sporeprint\[audio\]'"):
        resample(Clip(SWEEP, 8000), 16000)
    np.testing.assert_array_equal(load_audio((SWEEP, 8000)).samples, SWEEP)


@pytest.mark.parametrize(
    "error", [MemoryError(), soundfile.LibsndfileError(1), OSError("x"), ValueError("two\nlines"), struct.error("x")]
)
def test_what_a_decoder_raises_costs_the_row_only(monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    assert "damaged or cut short" in reason(encode())


def test_a_decoder_that_gives_fewer_frames_than_announced_is_not_believed(monkeypatch):
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *args, **options: read(*args, **options)[:-1])
    assert "damaged or cut short (6,000 frames announced, 5,999 decoded)" in reason(encode())


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (None, "null"),
        (3, "type int"),
        ([0.1, 0.2], "type list"),
        (b"", "empty"),
        (b"<html>not found</html>", "looks like a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "not audio in a known format"),
        (b"\xff\xfb", "not audio in a known format"),
        (b"ID3", "not audio in a known format"),
        (b"ID3\4\0\0\x7f\x7f\x7f\x7f", "not audio in a known format"),
        (b"RIFF\4\0\0\0WAVE", "chunks"),
        (b"fLaC", "less than a FLAC header"),
        (b"OggS", "no end-of-stream page"),
        ({"bytes": None, "path": None}, "without bytes, path or array"),
        ({"bytes": b"", "path": "a.wav"}, "empty"),
        ({}, "without bytes, path or array"),
        ("nowhere.wav", "no file 'nowhere.wav'"),
        ("a\0b.wav", "null"),
        ("x" * 5000, "cannot be opened"),
        ("https://example.org/a.wav", "web address"),
        (os.curdir, "not a file"),
        (os.devnull, "not a file"),
        (np.zeros(0), "zero samples"),
        (np.zeros((2, 0)), "zero samples"),
        (np.zeros(8000), "silent, all 8,000 samples are 0"),
        (np.full(8000, 0.25), "silent, all 8,000 samples are 0.25"),
        (np.array([1e-300, 0]), "silent"),
        (np.array([0.1, np.nan, np.inf]), "2 of 3 samples are NaN or infinite"),
        (np.array([0, 8.001]), "from 0 to 8.001; floats are in"),
        (np.array([-32768.0, 5.0]), "divide by 32768"),
        (np.array([-1e300, 0]), "from -1e\\+300"),
        (np.array([[30_000.0, 0.2, 0.1], [-30_000.0, 0.1, 0.2]]), "from -3e\\+04 to 3e\\+04; floats are in"),
        (np.array([[9.0, 0.2, 0.1], [-9.0, 0.1, 0.2]], np.float32), "from -9 to 9"),
        (np.array([[np.inf, 0.2, 0.1], [-np.inf, 0.1, 0.2]]), "2 of 6 samples are NaN or infinite"),
        (np.zeros((9, 20)), "9 channels, expected at most 8"),
        (np.zeros((4, 4)), "expected \\[n\\], \\[channels, n\\]"),
        (np.zeros((1, 2, 20)), "one clip a sample"),
        (np.array(3.0), "one clip a sample"),
        (np.arange(9, dtype=np.uint8), "of uint8: expected a float"),
        (np.arange(9), "of int64: expected a float"),
        (np.ones(9, bool), "of bool: expected a float"),
        (np.ones(9, complex), "of complex128: expected a float"),
        (np.broadcast_to(np.float32(0), (2, 43_200_001)), "over 86,400,000 values .*--max-seconds"),
        ((SWEEP,), "a tuple of 1"),
        ((16000, SWEEP), "expected a pair"),
        ((SWEEP, 0), "a rate of 0; expected a whole number from 1000 to 768000 Hz"),
        ((SWEEP, 999), "a rate of 999"),
        ((SWEEP, 10**6), "a rate of 1000000"),
        ((SWEEP, 8000.5), "a rate of 8000.5"),
        ((SWEEP, float("nan")), "a rate of nan"),
        ((SWEEP, "8000"), "a rate of a value of type str"),
        ({"array": [[1.0, 2.0], [3.0]], "sampling_rate": 8000}, "cannot be read"),
        ({"array": ["a"], "sampling_rate": 8000}, "expected a float"),
        (Clip(np.zeros(9, np.float64), 8000), "expected float32"),
        (Clip(np.zeros(9, np.float32), 8000), "silent"),
        (Clip(SWEEP, -1), "a rate of -1"),
    ],
)
def test_what_is_no_sound_is_a_row_error(sample, expected):
    with pytest.raises(SampleError, match=expected):
        load_audio(sample)


def test_files_that_hold_no_sound_are_row_errors():
    assert "silent" in reason(encode(samples=np.zeros(100)))
    assert "silent" in reason(encode("FLAC", samples=np.full(100, 0.5)))
    assert "2 of 3 samples are NaN" in reason(encode("WAV", "FLOAT", np.array([0, np.nan, -np.inf])))
    cancelling = np.array([[30_000, -30_000], [0.2, 0.1], [0.1, 0.2]])
    assert "from -3e+04 to 3e+04" in reason(encode("WAV", "FLOAT", cancelling))
    assert "a rate of 900" in reason(encode(rate_hz=900))
    assert "looks like AU sound" in reason(encode("AU"))
    assert "codec 0x11" in reason(encode("WAV", "IMA_ADPCM"))
    assert "compressed AIFF" in reason(encode("AIFF", "IMA_ADPCM"))
    vorbis = encode("OGG", "VORBIS")
    assert "several OGG streams" in reason(vorbis + encode("OGG", "OPUS"))


def test_an_absurd_size_is_refused_before_anything_is_decoded(monkeypatch):
    flac = encode("FLAC")
    huge = with_bytes(flac, 21, bytes([flac[21] | 0x0F]) + b"\xff" * 4)
    monkeypatch.setattr(soundfile.SoundFile, "read", None)
    assert "4,294,967 s of sound, over 1800; cut it into shorter clips, or raise max_seconds" in reason(huge)
    assert "0 s of sound, over 0.37" in reason(encode(), max_seconds=0.37)
    stereo = encode(samples=np.stack([SWEEP] * 2, axis=1), rate_hz=48_000)
    assert "6,000 frames of 2 channels, over 9,600 values" in reason(stereo, max_seconds=0.2)


def test_the_limit_of_seconds_can_be_raised():
    assert len(load_audio(encode(), Limits(max_seconds=0.375)).samples) == 6000
    assert len(load_audio((np.tile(SWEEP, 15_000), 16_000), Limits(max_seconds=5625)).samples) == 90_000_000


def test_a_reason_holds_no_folder_and_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "cut.flac").write_bytes(encode("FLAC")[:-5])
    names = ("pipe.wav", "text.wav", "empty.wav", "cut.flac", "none.wav", "")
    reasons = {name: reason(tmp_path / name) for name in names}
    assert "a pipe" in reasons["pipe.wav"]
    assert "0 bytes" in reasons["empty.wav"]
    assert "damaged or cut short" in reasons["cut.flac"]
    assert not any(str(tmp_path) in text for text in reasons.values())
    (tmp_path / "text.wav").write_bytes(b"hello" + bytes(2**20))
    assert "1,048,581 bytes, over 1,048,576" in reason(tmp_path / "text.wav", max_seconds=1e-6)


def test_suffixes_are_lower_case_and_name_every_container():
    assert {".wav", ".w64", ".flac", ".ogg", ".opus", ".mp3", ".aiff"} < SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


@pytest.mark.real
def test_real_recordings_of_spoken_digits_are_read_whole(shared):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(shared / "data" / "spoken_digits" / "train.parquet").slice(0, 20)["audio"].to_pylist()
    clips = [load_audio(row) for row in rows]
    assert {clip.rate_hz for clip in clips} == {8000}
    assert all(800 < len(clip.samples) < 20_000 and np.abs(clip.samples).max() <= 1 for clip in clips)
    assert len({clip_digest(clip) for clip in clips}) == 20
