"""From a clip to an audio network's input: lengths, limits, masks, and loading by folder."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from small_audio import (
    FAMILIES,
    STABLE,
    WAVE,
    ast_extractor,
    clap_extractor,
    fused_extractor,
    hubert,
    tf,
    tones,
    wav2vec2,
    wave_extractor,
    whisper_extractor,
)
from sporeprint import Fungi, Recipe
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.sound import Sound
from sporeprint.backbones.libraries.huggingface import find_modality
from sporeprint.backbones.libraries.huggingface_audio import (
    ast_tokens,
    pads_waveforms,
    shortest_waveform,
    whisper_tokens,
)
from sporeprint.backbones.load import load_backbone
from sporeprint.data.audio import Clip
from sporeprint.errors import BackboneError, SampleError

RATE_HZ = 16_000


def clip(samples, rate_hz=RATE_HZ, seed=0):
    return Clip(np.random.default_rng(seed).standard_normal(samples).astype(np.float32), rate_hz)


def view_of(extractor, samples, **options):
    inputs = Sound(extractor, **options)
    return inputs(inputs.prepare(clip(samples, inputs.rate_hz)))


@pytest.mark.parametrize(
    ("samples", "frames", "tokens"),
    [
        (400, 3, 2),
        (8_000, 50, 25),  # half a second: a frame for every 160 samples, a token for every two frames
        (8_001, 51, 26),
        (8_160, 51, 26),
        (8_161, 52, 26),
        (479_840, 2_999, 1_500),
        (479_841, 3_000, 1_500),
        (480_000, 3_000, 1_500),
        (496_000, 3_000, 1_500),  # 31 s: cut at 30
    ],
)
def test_whisper_pools_over_the_frames_that_hold_sound(samples, frames, tokens):
    view = view_of(whisper_extractor(chunk_length=30), samples)
    assert (view["input_features"].shape, int(view["frames"])) == ((8, 3_000), frames)
    batch = {"input_features": view["input_features"][None], "frames": view["frames"][None]}
    assert whisper_tokens(batch).sum().item() == tokens
    assert whisper_tokens(batch)[0, :tokens].all()


def test_frames_behind_whispers_real_ones_do_not_hear_the_clip():
    extractor = whisper_extractor()
    for samples in (400, 8_000, 8_001, 20_000):
        view = view_of(extractor, samples)
        shortened = clip(samples)
        shortened.samples[-80:] = 0  # the last half frame
        inputs = Sound(extractor)
        changed = (inputs(shortened)["input_features"] != view["input_features"]).any(dim=0).nonzero().flatten()
        frames = int(view["frames"])
        assert frames - 3 <= changed.min() <= frames - 1
        assert changed.max() <= frames + 1  # a window of 25 ms reaches 12.5 ms around its frame's instant


def test_ast_patches_are_ordered_as_the_convolution_flattens_them():
    module = FAMILIES["ast"].module(torch.float64)
    inputs = Sound(ast_extractor(mean=0.0))
    view = inputs(clip(400 + 19 * 160))  # 20 frames of 64: patches begin at 0, 4, ... 56, those before 20 in the sound
    assert int(view["frames"]) == 20
    batch = {name: tensor[None] for name, tensor in view.items()}
    real = ast_tokens(module, batch)[0]
    patches = module.embeddings.patch_embeddings
    with torch.no_grad():
        spectrogram = batch["input_values"].double()
        silent = patches(spectrogram * 0)[0]
        heard = (patches(spectrogram)[0] != silent).any(dim=1)
    assert real.tolist() == [False, False, *heard.tolist()]
    assert heard.sum() == 5 * 3  # in each of 3 bands; 15 times


def test_asts_mean_is_over_the_patches_that_begin_in_the_sound():
    family = FAMILIES["ast"]
    fungi = Fungi(Recipe(objectives=[], pooling="mean"), backbone=family.backbone(torch.float64, pooling="mean"))
    inputs, module = fungi.network.preprocess, fungi.network.module
    clips = [clip(400 + 160 * (frames - 1), seed=frames) for frames in (5, 20, 64)]
    embeddings = fungi.blocks(clips)["embedding"]
    for sound, row, steps in zip(clips, embeddings, (2, 5, 15), strict=True):
        with torch.no_grad():
            tokens = module(inputs(sound)["input_values"][None].double()).last_hidden_state[0, 2:]
        expected = tokens.unflatten(0, (3, 15))[:, :steps].mean(dim=(0, 1))
        np.testing.assert_allclose(row, (expected / expected.norm()).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "frames"), [(400, 1), (559, 1), (560, 2), (16_000, 98), (164_080, 1_024), (170_000, 1_024)]
)
def test_asts_frames_are_windows_of_25_ms_every_10_ms(samples, frames):
    extractor = ast_extractor(max_length=1_024)
    view = view_of(extractor, samples)
    assert int(view["frames"]) == frames
    silent = -extractor.mean / (2 * extractor.std)
    assert (view["input_values"][frames:] - silent).abs().max() < 1e-6 if frames < 1_024 else True
    assert ((view["input_values"][:frames] - silent).abs() > 1e-6).any(dim=1).all()


@pytest.mark.parametrize(
    ("padding", "samples", "frames"),
    [
        ("repeatpad", 24_000, 201),  # 4 times half a second
        ("repeatpad", 40_000, 167),  # twice 40,000 of 96,000: 166.67 frames of 480
        ("repeatpad", 50_000, 105),
        ("repeatpad", 96_000, 201),
        ("pad", 24_000, 50),
        ("repeat", 40_000, 201),
    ],
)
def test_claps_frames_are_the_copies_of_the_clip_and_not_the_padding(padding, samples, frames):
    view = view_of(clap_extractor(padding=padding), samples)
    assert (view["input_features"].shape, int(view["frames"])) == ((1, 201, 16), frames)
    floor = view["input_features"].min()
    assert (view["input_features"][:, :frames] > floor).any(dim=-1).all()
    assert (view["input_features"][:, frames + 2 :] == floor).all()


@pytest.mark.parametrize(
    ("make", "seconds", "most"),
    [
        (lambda: whisper_extractor(chunk_length=30), 30, 480_000),
        (lambda: ast_extractor(max_length=1_024), 10.255, 164_080),  # 1,024 frames: 10.24 s and 15 ms of a window
        (lambda: clap_extractor(max_length_s=10), 10, 480_000),
        (wave_extractor, 30, 480_000),
    ],
)
def test_clips_are_cut_at_the_networks_limit_and_only_beyond_it(make, seconds, most):
    inputs = Sound(make())
    assert inputs.limits()["max_seconds"] == pytest.approx(seconds)
    whole, longer = (inputs.prepare(clip(samples, inputs.rate_hz)) for samples in (most, most + 1))
    assert [inputs.truncates(prepared) for prepared in (whole, longer)] == [False, True]
    np.testing.assert_array_equal(longer.samples, whole.samples)


def test_a_limit_of_ones_own_is_below_the_networks():
    inputs = Sound(whisper_extractor(), max_seconds=0.5)
    assert inputs.prepare(clip(9_000)).samples.shape == (8_000,)
    for wrong in (2.1, 0, -1, 0.01, float("nan")):
        with pytest.raises(BackboneError, match=r"expected 0.025 to 2.00 s"):
            Sound(whisper_extractor(), max_seconds=wrong)
    assert Sound(wave_extractor(), max_seconds=100).max_seconds == 100


def test_what_is_silent_up_to_the_cut_is_a_row_error():
    samples = np.zeros(32_001, np.float32)
    samples[-1] = 1
    with pytest.raises(SampleError, match="the first 2 s are silent"):
        Sound(whisper_extractor()).prepare(Clip(samples, RATE_HZ))


@pytest.mark.parametrize("make", [whisper_extractor, ast_extractor, clap_extractor, fused_extractor, wave_extractor])
def test_25_ms_are_enough_and_less_is_a_row_error(make):
    inputs = Sound(make())
    least = inputs.rate_hz // 40
    view = inputs(inputs.prepare(clip(least, inputs.rate_hz)))
    assert all(torch.isfinite(tensor).all() for tensor in view.values())
    with pytest.raises(SampleError, match="this network needs at least 25 ms"):
        inputs.prepare(clip(least - 1, inputs.rate_hz))


def test_a_clip_of_which_a_networks_convolutions_make_no_frame_is_a_row_error():
    assert shortest_waveform(torch.nn.Module()) == 0
    assert shortest_waveform(SimpleNamespace(config=tf.Wav2Vec2Config())) == 400  # 25 ms, as its authors say
    assert shortest_waveform(hubert(**STABLE)) == 80
    slow = tf.HubertModel(tf.HubertConfig(**(WAVE | STABLE | {"conv_kernel": (10, 60), "conv_stride": (10, 60)})))
    backbone = Backbone(slow, preprocess=wave_extractor())
    assert shortest_waveform(slow) == 600  # 59 steps of 10, and the last window of 10
    fungi = Fungi(Recipe(objectives=[]), backbone=backbone)
    rows = [clip(600, seed=1), clip(599, seed=2), clip(5_000, seed=3)]
    with pytest.warns(UserWarning, match="37.4 ms of sound; this network needs at least 37.5 ms"):
        blocks = fungi.blocks(rows)
    assert np.isfinite(blocks["embedding"]).all(axis=1).tolist() == [True, False, True]


def test_no_extractor_draws_from_a_global_generator():
    for make in (whisper_extractor, ast_extractor, clap_extractor, fused_extractor, wave_extractor):
        inputs = Sound(make())
        before = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        views = [inputs(inputs.prepare(clip(samples, inputs.rate_hz))) for samples in (5_000, 10**6)]
        after = np.random.get_state()  # noqa: NPY002
        assert (after[1] == before[0][1]).all()
        assert after[2:] == before[0][2:]
        assert torch.equal(torch.get_rng_state(), before[1])
        again = [inputs(inputs.prepare(clip(samples, inputs.rate_hz))) for samples in (5_000, 10**6)]
        for view, same in zip(views, again, strict=True):
            assert all(torch.equal(view[name], same[name]) for name in view)


def test_an_extractor_that_adds_noise_is_refused():
    with pytest.raises(BackboneError, match=r"dither=0.1.*set extractor.dither = 0.0"):
        Sound(whisper_extractor(dither=0.1))


def test_an_extractor_that_is_not_known_is_refused():
    with pytest.raises(BackboneError, match="is a SpeechT5FeatureExtractor; expected one of: Whisper"):
        Sound(tf.SpeechT5FeatureExtractor())


@pytest.mark.parametrize(
    ("name", "make", "complaint"),
    [
        ("whisper", wave_extractor, "WhisperEncoder takes the input of WhisperFeatureExtractor, not of Wav2Vec2Featu"),
        ("whisper", ast_extractor, "not of ASTFeatureExtractor: give the one that the network was trained with"),
        ("ast", whisper_extractor, "ASTModel takes the input of ASTFeatureExtractor, not of WhisperFeatureExtractor"),
        ("ast", wave_extractor, "not of Wav2Vec2FeatureExtractor"),
        ("clap", ast_extractor, "ClapAudioModel takes the input of ClapFeatureExtractor, not of ASTFeatureExtractor"),
        ("hubert-group", clap_extractor, "HubertModel takes the input of Wav2Vec2FeatureExtractor, not of ClapFeatur"),
        ("data2vec", whisper_extractor, "Data2VecAudioModel takes the input of Wav2Vec2FeatureExtractor"),
        (
            "whisper",
            lambda: whisper_extractor(feature_size=16, chunk_length=30),
            "makes mel bins 16, frames 3000; WhisperEncoder takes mel bins 8, frames 200",
        ),
        ("whisper", lambda: whisper_extractor(sampling_rate=32_000), "makes mel bins 8, frames 400; .* frames 200"),
        ("ast", lambda: ast_extractor(max_length=128), "makes mel bins 16, frames 128; ASTModel .* frames 64"),
        ("ast", lambda: ast_extractor(num_mel_bins=32), "makes mel bins 32, frames 64; ASTModel takes mel bins 16"),
        ("ast", lambda: ast_extractor(sampling_rate=8_000), "for sound at 8000 Hz; .* set sampling_rate to 16000"),
        ("clap", fused_extractor, "frames 201, copies 4; ClapAudioModel takes mel bins 16, frames 201, copies 1"),
        ("clap", lambda: clap_extractor(max_length_s=10), "frames 1001, copies 1; .* frames 256, copies 1"),  # 64 * 4
        ("hubert-group", lambda: Sound(wave_extractor(), pads=True), "does not ignore a batch's padding.* pads=False"),
    ],
)
def test_an_extractor_of_another_network_is_refused_by_name(name, make, complaint):
    with pytest.raises(BackboneError, match=complaint):
        Backbone(FAMILIES[name].module(), preprocess=make())


def test_a_network_that_fuses_takes_one_spectrogram_too():
    backbone = FAMILIES["clap-fused"].backbone()
    single = Backbone(FAMILIES["clap-fused"].module(), preprocess=clap_extractor())
    assert (backbone.width, single.width) == (16, 16)


def test_a_network_of_ones_own_that_fails_says_what_it_was_given():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 6)

        def forward(self, **named):
            return self.layer(named["spectrogram"])

    with pytest.raises(BackboneError, match=r"fails on one clip: 'spectrogram'. Does its forward take input_f"):
        Backbone(Own(), target="layer", preprocess=whisper_extractor())


def test_padded_waveforms_carry_a_mask_and_lengths_that_are_not_padded_none():
    views = [{"input_values": torch.ones(n)} for n in (3, 5)]
    padded = Sound(wave_extractor(), pads=True).collate(views)
    assert padded["input_values"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert list(Sound(wave_extractor()).collate(views[:1])) == ["input_values"]
    assert not pads_waveforms(torch.nn.Linear(2, 2))


def test_a_module_of_ones_own_takes_the_extractors_input_by_name():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.out = torch.nn.Linear(8, 6), torch.nn.Linear(6, 4)

        def forward(self, input_features):
            return self.out(torch.tanh(self.layer(input_features.mean(dim=-1))))

    fungi = Fungi(Recipe(objectives=[]), backbone=Backbone(Own(), target="layer", preprocess=whisper_extractor()))
    assert fungi.blocks([clip(5_000), clip(9_000)])["embedding"].shape == (2, 4)


# Loading by folder


@pytest.mark.parametrize(
    "name", ["ast", "wav2vec2-layer", "hubert-group", "wavlm-stable", "data2vec", "whisper", "clap"]
)
def test_a_checkpoints_folder_gives_what_its_module_gives(name, tmp_path):
    family = FAMILIES[name]
    module = family.module()
    module.save_pretrained(tmp_path)
    family.extractor().save_pretrained(tmp_path)
    assert find_modality(str(tmp_path)) == "audio"
    loaded = Fungi(Recipe(backbone=str(tmp_path), objectives=None, layers=0, seed=1))
    own = Fungi(Recipe(objectives=None, layers=0, seed=1), backbone=Backbone(module, preprocess=family.extractor()))
    assert [objective.name for objective in loaded.engine.objectives] == ["kl", "simclr"]
    clips = [(tone, RATE_HZ) for tone in tones()]
    blocks = own.fit_blocks(clips)
    for block, values in loaded.fit_blocks(clips).items():
        np.testing.assert_array_equal(values, blocks[block], err_msg=block)
    described = loaded.network.describe(), own.network.describe()
    assert described[0]["preprocess"] == described[1]["preprocess"]
    assert described[0]["sample_rate_hz"] == family.extractor().sampling_rate


def test_a_folder_without_the_extractors_settings_says_what_is_missing(tmp_path):
    wav2vec2(**STABLE).save_pretrained(tmp_path)
    complaint = r"feature extractor of .*\(preprocessor_config\.json\).*feature_extractor\.save_pretrained\(folder\)"
    with pytest.raises(BackboneError, match=complaint):
        load_backbone(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("{ no json")
    with pytest.raises(BackboneError, match=r"preprocessor_config\.json cannot be read: Expecting"):
        load_backbone(str(tmp_path))
    whisper_extractor().save_pretrained(tmp_path)
    with pytest.raises(
        BackboneError, match="Wav2Vec2Model takes the input of Wav2Vec2FeatureExtractor, not of Whisper"
    ):
        load_backbone(str(tmp_path))


def roberta_tokenizer(folder):
    """A vocabulary of bytes, without merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: at for at, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet])}
    inner = Tokenizer(models.BPE(words, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>"}
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=512, sep_token="</s>", **special)
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_clap_has_a_tower_for_sound_and_one_for_text(tmp_path):
    module = FAMILIES["clap"].module()
    module.save_pretrained(tmp_path)
    clap_extractor().save_pretrained(tmp_path)
    tokenizer = roberta_tokenizer(tmp_path)
    sound = clip(20_000, 48_000)
    with torch.no_grad():
        batch = clap_extractor()(sound.samples, sampling_rate=48_000, return_tensors="pt")
        expected = module.audio_model(**batch).pooler_output[0]
    for modality in ("audio", "auto"):
        heard = Fungi(Recipe(backbone=str(tmp_path), modality=modality, objectives=[]))
        assert type(heard.network.module).__name__ == "ClapAudioModel"
        embeddings = heard.blocks([sound])["embedding"][0]
        np.testing.assert_allclose(embeddings, (expected / expected.norm()).numpy(), atol=1e-6)
    read = Fungi(Recipe(backbone=str(tmp_path), modality="text", objectives=[]))
    assert (read.network.modality, read.network.pooling) == ("text", "own")
    assert read.network.preprocess.max_length == 38  # of 40 positions RoBERTa keeps two for padding
    texts = ["A dog barks.", "Rain on a tin roof, and thunder"]
    embeddings = read.blocks(texts)["embedding"]
    for text, row in zip(texts, embeddings, strict=True):
        with torch.no_grad():
            expected = module.text_model(**tokenizer(text, return_tensors="pt")).pooler_output[0]
        np.testing.assert_allclose(row, (expected / expected.norm()).numpy(), atol=1e-6)
    with pytest.raises(BackboneError, match="not image"):
        load_backbone(str(tmp_path), modality="image")
