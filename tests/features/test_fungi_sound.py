"""Sound through Fungi: every kind of sample, rows that fail, saving, and a real encoder."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import warnings

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from torch.nn.functional import normalize

from small_audio import FAMILIES, tf, tones, wave_extractor
from sporeprint import KL, Fungi, Recipe, SimCLR, open_source
from sporeprint.backbones.backbone import Backbone
from sporeprint.data.audio import clip_digest, load_audio
from sporeprint.errors import MissingExtra, TooManyFailures
from sporeprint.objectives.view_sets import generator
from sporeprint.objectives.views.clip import NoiseAndRoll
from sporeprint.run.extract import Settings, extract

soundfile = pytest.importorskip("soundfile")

RATE_HZ = 16_000
OBJECTIVES = (KL(latent=12), SimCLR(latent=10, negatives=2))
CLIPS = tones((0.4, 0.3, 0.21, 0.35))
FAMILY = FAMILIES["whisper"]


def make(family=FAMILY, objectives=(), **options):
    return Fungi(Recipe(objectives=objectives, dim=12, seed=2), backbone=family.backbone(), **options)


def encode(samples, rate_hz=RATE_HZ, kind="WAV", subtype="FLOAT"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=kind, subtype=subtype)
    return file.getvalue()


def test_one_clip_has_the_same_blocks_however_it_is_given(tmp_path):
    clip = CLIPS[0]
    path, flac = tmp_path / "a.wav", tmp_path / "a.flac"
    path.write_bytes(encode(clip))
    integers = np.round(clip * 2**15).astype(np.int16)
    flac.write_bytes(encode(integers, kind="FLAC", subtype="PCM_16"))
    samples = [
        (clip, RATE_HZ),
        path,
        str(path),
        path.read_bytes(),
        {"bytes": path.read_bytes(), "path": None},
        {"bytes": None, "path": str(path)},
        {"array": clip, "sampling_rate": RATE_HZ},
        (torch.from_numpy(clip), RATE_HZ),
        load_audio((clip, RATE_HZ)),
        np.stack([clip, clip], axis=1),
        clip,
        torch.from_numpy(clip),
    ]
    fungi = make(objectives=(KL(latent=12),))
    blocks = fungi.blocks([*samples, flac, (integers, RATE_HZ)], ids=["x"] * (len(samples) + 2))
    for name, block in blocks.items():
        for row in block[: len(samples)]:
            np.testing.assert_allclose(row, block[0], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(block[-2], block[-1], atol=1e-6, err_msg=name)
    assert fungi.failures == []
    assert fungi.truncated == []


def test_another_rate_is_resampled_and_an_array_without_one_is_at_the_networks():
    time = np.arange(6_400) / RATE_HZ
    tone = (0.3 * np.sin(2 * np.pi * 500 * time) + 0.2 * np.sin(2 * np.pi * 1700 * time)).astype(np.float32)
    halved = tone[::2]  # below 4 kHz throughout: 8 kHz holds all of it
    found = make().blocks([(tone, RATE_HZ), (halved, 8_000), halved, np.repeat(tone, 1)])["embedding"]
    near = found @ found[0]
    assert near[3] == pytest.approx(1, abs=1e-6)
    assert near[1] > 0.999
    assert near[2] < near[1] - 0.01  # taken at 16 kHz it is an octave too high, and half as long


def test_without_ids_views_are_seeded_by_the_content():
    fungi = make(objectives=OBJECTIVES)
    fungi.fit(CLIPS)
    given = [(clip, RATE_HZ) for clip in CLIPS[:2]]
    ids = [clip_digest(load_audio(one)) for one in given]
    by_content, by_id, other = fungi.blocks(given), fungi.blocks(given, ids=ids), fungi.blocks(given, ids=["a", "b"])
    np.testing.assert_array_equal(by_content["simclr"], by_id["simclr"])
    np.testing.assert_array_equal(fungi.blocks(given[::-1])["simclr"][::-1], by_content["simclr"])
    assert np.abs(other["simclr"] - by_content["simclr"]).max() > 1e-3
    np.testing.assert_array_equal(other["kl"], by_content["kl"])


def test_a_bad_file_costs_its_row_only_and_says_why(tmp_path):
    flac = encode(CLIPS[1], kind="FLAC", subtype="PCM_16")
    (tmp_path / "notes.txt").write_text("no sound")
    bad = {
        "zero-length": (encode(CLIPS[0][:0]), "zero samples"),
        "empty": (b"", "empty"),
        "silent": (np.zeros(8_000, np.float32), "silent"),
        "nan": (np.array([0.1, np.nan] * 4_000), "NaN"),
        "cut": (flac[:-100], "damaged or cut short"),
        "text": (tmp_path / "notes.txt", "not audio in a known format"),
        "nowhere": (tmp_path / "gone.wav", "no file 'gone.wav'"),
        "short": ((CLIPS[0][:300], RATE_HZ), "18.8 ms of sound; this network needs at least 25 ms"),
        "null": (None, "no audio"),
    }
    samples = [CLIPS[0], *(sample for sample, _ in bad.values()), flac, CLIPS[2]]
    ids = ["first", *bad, "flac", "last"]
    fungi = make(objectives=OBJECTIVES, max_failures=0.8)
    with pytest.warns(UserWarning, match="9 of 12 rows are NaN"):
        blocks = fungi.fit_blocks(samples, ids=ids)
    assert [failure.id for failure in fungi.failures] == list(bad)
    for failure in fungi.failures:
        assert bad[failure.id][1] in failure.reason
        assert str(tmp_path) not in failure.reason
    alone = fungi.blocks([CLIPS[0], flac, CLIPS[2]], ids=["first", "flac", "last"])
    for name, block in blocks.items():
        assert np.isnan(block[1:10]).all()
        np.testing.assert_allclose(block[[0, 10, 11]], alone[name], atol=1e-5, err_msg=name)
    with pytest.raises(TooManyFailures, match="2 of 3 rows cannot be read"):
        make().blocks([CLIPS[0], b"", np.zeros(9)])


def broken_folder(folder):
    """Twelve good recordings in two classes, and one of every kind that is none; returns {id: reason}."""
    for at in range(12):
        path = folder / "ab"[at % 2] / f"{at:02}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(tones((0.1 + 0.02 * at,))[0]))
    flac = encode(CLIPS[1], kind="FLAC", subtype="PCM_16")
    spoilt = np.where(np.arange(900) % 3, 0.1, np.nan)
    bad = {
        "a/cut.flac": (flac[:-50], "'cut.flac': damaged or cut short"),
        "a/inf.wav": (encode(np.where(np.isnan(spoilt), np.inf, 0.1)), "300 of 900 samples are NaN or infinite"),
        "a/nan.wav": (encode(spoilt), "300 of 900 samples are NaN or infinite"),
        "a/nothing.mp3": (b"", "'nothing.mp3': empty"),
        "b/short.wav": (encode(CLIPS[0][:399]), "24.9 ms of sound; this network needs at least 25 ms"),
        "b/silent.wav": (encode(np.zeros(900)), "'silent.wav': silent"),
        "b/text.ogg": (b"no sound at all", "'text.ogg': not audio in a known format"),
        "b/zero.wav": (encode(CLIPS[0][:0]), "'zero.wav': zero samples"),
    }
    for name, (data, _) in bad.items():
        (folder / name).write_bytes(data)
    return {name: reason for name, (_, reason) in bad.items()}


def test_a_store_names_the_files_that_are_no_sound_and_too_many_of_them_stop_the_run(tmp_path):
    reasons = broken_folder(tmp_path / "sound")
    source = open_source(tmp_path / "sound", modality="audio")
    recipe = Recipe(objectives=[KL(latent=12)], layers=0, dim=12)
    store = extract(source, tmp_path / "s", recipe, backbone=FAMILY.backbone(), settings=Settings(max_failures=0.4))
    assert {failure.id for failure in store.failures} == set(reasons)
    for failure in store.failures:
        assert reasons[failure.id] in failure.reason
        assert str(tmp_path) not in failure.reason
    assert store.ids == [f"{'ab'[at % 2]}/{at:02}.wav" for at in (*range(0, 12, 2), *range(1, 12, 2))]
    blocks = Fungi(recipe, backbone=FAMILY.backbone()).blocks([tmp_path / "sound" / one for one in store.ids])
    for name, values in store.blocks().items():
        np.testing.assert_allclose(values, blocks[name], atol=1e-5, err_msg=name)
    for allowed in (0.01, 0.39):  # one of 20; seven
        with pytest.raises(TooManyFailures, match=r"8 of 20 rows cannot be read; at most . may fail"):
            extract(source, tmp_path / str(allowed), recipe, None, FAMILY.backbone(), Settings(max_failures=allowed))


def test_columns_of_sound_in_parquet_give_what_the_arrays_give(tmp_path):
    rates = (RATE_HZ, 8_000, RATE_HZ)
    clips = [(clip, rate_hz) for clip, rate_hz in zip(CLIPS, rates, strict=False)]
    files = [encode(*clip) for clip in clips]
    columns = {
        "encoded": [{"bytes": data, "path": f"{at}.wav"} for at, data in enumerate(files)],
        "plain": files,
        "array": [{"array": clip, "sampling_rate": rate_hz} for clip, rate_hz in clips],
        "array-path": [{"path": "gone.wav", "array": clip, "sampling_rate": rate_hz} for clip, rate_hz in clips],
    }
    (tmp_path / "2.wav").write_bytes(files[2])
    columns["path"] = [*columns["encoded"][:2], {"bytes": None, "path": "2.wav"}]
    expected = make().blocks(clips)["embedding"]
    for name, values in columns.items():
        path = tmp_path / f"{name}.parquet"
        parquet.write_table(pyarrow.table({"audio": values, "label": [0, 1, 0]}), path)
        source = open_source(path, modality="audio")
        store = extract(source, tmp_path / name, Recipe(objectives=[], layers=0), backbone=FAMILY.backbone())
        np.testing.assert_allclose(store.blocks()["embedding"], expected, atol=1e-6, err_msg=name)
        assert (store.labels.tolist(), store.failures) == ([0, 1, 0], [])


def test_clips_beyond_the_limit_are_cut_named_and_counted():
    long = np.tile(CLIPS[0], 6)  # 2.4 s; this encoder hears 2 s
    fungi = make(objectives=(KL(latent=12),))
    with pytest.warns(UserWarning, match=r"2 of 3 rows are too long and were cut \(max_seconds 2\): row 0, row 2"):
        blocks = fungi.blocks([long, CLIPS[1], long[:32_001]])
    assert fungi.truncated == ["row 0", "row 2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact = fungi.blocks([long[:32_000]])
    assert fungi.truncated == []
    for name, block in exact.items():
        np.testing.assert_allclose(blocks[name][[0, 2]], block[[0, 0]], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["ast", "clap-fused", "wav2vec2-group"])
def test_limits_of_the_other_families_are_reported_too(name):
    fungi = make(FAMILIES[name])
    seconds = fungi.network.preprocess.max_seconds
    long = np.tile(CLIPS[0], round(seconds / 0.4) + 1)
    with pytest.warns(UserWarning, match="1 of 2 rows are too long and were cut"):
        fungi.blocks([(CLIPS[1], RATE_HZ), (long, RATE_HZ)], ids=["short", "long"])
    assert fungi.truncated == ["long"]


def test_without_the_extra_arrays_work_and_a_file_says_what_to_install(monkeypatch):
    data = encode(CLIPS[0])
    fungi = make()
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.setitem(sys.modules, "soxr", None)
    assert np.isfinite(fungi.blocks([CLIPS[0], (CLIPS[1], RATE_HZ)])["embedding"]).all()
    for sample, package in ((data, "soundfile"), ((CLIPS[0], 8_000), "soxr")):
        with pytest.raises(MissingExtra, match=rf"{package}; pip install 'sporeprint\[audio\]'"):
            fungi.blocks([CLIPS[1], sample])


@pytest.mark.parametrize("name", ["whisper", "wav2vec2-layer", "hubert-group", "ast", "clap"])
def test_saved_pickled_and_copied_it_gives_the_same_features(name, tmp_path):
    family = FAMILIES[name]
    checkpoint = tmp_path / "checkpoint"
    family.module().save_pretrained(checkpoint)
    family.extractor().save_pretrained(checkpoint)
    recipe = Recipe(backbone=str(checkpoint), objectives=OBJECTIVES, dim=12, size=3)
    fungi = Fungi(recipe).fit([(clip, RATE_HZ) for clip in CLIPS])
    queries = [(clip, RATE_HZ) for clip in tones((0.25, 0.2))]
    expected = fungi.transform(queries)
    fungi.save(tmp_path / "saved")
    assert not [path for path in (tmp_path / "saved").iterdir() if path.suffix not in (".json", ".safetensors")]
    copies = [Fungi.load(tmp_path / "saved"), copy.deepcopy(fungi)]
    if name not in ("wav2vec2-layer", "hubert-group"):  # torch pickles no weight-normed convolution
        copies.append(pickle.loads(pickle.dumps(fungi)))
    for other in copies:
        np.testing.assert_array_equal(other.transform(queries), expected)


def test_workers_and_batches_change_no_number():
    given = [(clip, RATE_HZ) for clip in tones((0.4, 0.1, 0.21, 0.35, 0.1, 0.05, 0.4))]
    for name in ("whisper", "wav2vec2-layer", "hubert-group"):
        expected = make(FAMILIES[name], OBJECTIVES).fit_blocks(given)
        again = make(FAMILIES[name], OBJECTIVES, batch_size=2, workers=3).fit_blocks(given)
        for block, values in expected.items():
            limit = 1e-5 if block in ("embedding", "simclr.views") or "-" in block else 2e-3
            assert np.abs(values - again[block]).max() < limit, (name, block)


def test_a_loud_and_a_quiet_take_of_a_waveform_are_one_sound():
    found = make(FAMILIES["wav2vec2-layer"]).blocks([(CLIPS[0], RATE_HZ), (CLIPS[0] / 8, RATE_HZ)])["embedding"]
    assert found[0] @ found[1] > 0.999  # the extractor normalises
    raw = Fungi(
        Recipe(objectives=[]),
        backbone=Backbone(FAMILIES["wav2vec2-layer"].module(), preprocess=wave_extractor(do_normalize=False)),
    )
    found = raw.blocks([(CLIPS[0], RATE_HZ), (CLIPS[0] / 8, RATE_HZ)])["embedding"]
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.real
def test_a_digits_embedding_and_gradients_are_those_of_whisper_itself_one_view_at_a_time(shared):
    folder = str(shared / "models" / "whisper-tiny-en-encoder")
    table = parquet.read_table(shared / "data" / "spoken_digits" / "test.parquet").slice(0, 3)
    rows, ids = table["audio"].to_pylist(), ["a", "b", "c"]
    objectives = (KL(), SimCLR(augmentation=NoiseAndRoll(views=4), negatives=2).for_modality("audio"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a decoder that the checkpoint lacks, say
        fungi = Fungi(Recipe(backbone=folder, objectives=objectives, layers=0))
        fungi.draw_negatives(list(zip(ids, rows, strict=True)))
        blocks = fungi.blocks(rows, ids=ids)
    assert fungi.network.describe()["pooling"] == "mean"
    extractor = tf.AutoFeatureExtractor.from_pretrained(folder)
    module = tf.WhisperModel.from_pretrained(folder, dtype=torch.float32).get_encoder().eval().requires_grad_(False)
    layer, matrix = module.layers[-1].self_attn.out_proj.requires_grad_(), fungi.projection.matrix().double()
    soxr = pytest.importorskip("soxr")
    inputs, negatives = fungi.network.preprocess, fungi.negatives["simclr"]
    assert negatives.shape == (4, 768)
    for at, row in enumerate(rows):
        samples, rate_hz = soundfile.read(io.BytesIO(row["bytes"]), dtype="float32")
        samples = soxr.resample(samples, rate_hz, 16_000, quality="HQ")
        features = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
        tokens = -(-len(samples) // 320)
        assert tokens < 60  # of 1,500: digits last about half a second
        shaken = objectives[1].augmentation(inputs.prepare(inputs.load(row)), inputs, generator(0, ids[at], "simclr"))
        for view in shaken:
            assert torch.equal(view["input_features"][:, -2_000:], features[0, :, -2_000:])  # padding stays as it is
        sets = {"kl": [features], "simclr": [view["input_features"][None] for view in shaken]}
        for objective in objectives if at == 0 else objectives[:1]:
            given = [module(view).last_hidden_state[0, :tokens].mean(dim=0) for view in sets[objective.name]]
            embeddings = torch.stack([normalize(one, dim=0) if objective.name == "kl" else one for one in given])
            if objective.name == "kl":
                np.testing.assert_allclose(blocks["embedding"][at], embeddings[0].detach().numpy(), atol=1e-5)
            extras = {"negatives": negatives} if objective.name == "simclr" else {}
            loss = objective.loss(fungi.heads[objective.name](embeddings)[None], **extras)
            weight, bias = torch.autograd.grad(loss.sum(), [layer.weight, layer.bias])
            gradient = normalize(torch.cat([weight, bias[:, None]], dim=1).flatten().double(), dim=0)
            expected = normalize(matrix @ gradient, dim=0).numpy()
            assert np.linalg.norm(blocks[objective.name][at] - expected) < 1e-4, objective.name
