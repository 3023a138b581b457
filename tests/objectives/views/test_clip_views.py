"""Noise and a roll: where they reach, how strong they are, and in what unit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from small_audio import ast_extractor, clap_extractor, fused_extractor, wave_extractor, whisper_extractor
from sporeprint import KL, Recipe, SimCLR
from sporeprint.backbones.inputs.sound import Sound
from sporeprint.data.audio import Clip
from sporeprint.errors import RecipeError
from sporeprint.features.contracts import check_views
from sporeprint.objectives.view_sets import generator
from sporeprint.objectives.views.clip import NoiseAndRoll

EXTRACTORS = {
    "whisper": whisper_extractor,
    "ast": ast_extractor,
    "clap": clap_extractor,
    "clap-fused": fused_extractor,
    "wave": wave_extractor,
    "wave-raw": lambda: wave_extractor(do_normalize=False),
}
SPECTROGRAMS = [name for name in EXTRACTORS if "wave" not in name]


@pytest.fixture(params=EXTRACTORS)
def inputs(request):
    return Sound(EXTRACTORS[request.param]())


@pytest.fixture(params=SPECTROGRAMS)
def spectral(request):
    return Sound(EXTRACTORS[request.param]())


def noise_clip(inputs, seconds=0.3, scale=0.1, seed=0):
    samples = scale * np.random.default_rng(seed).standard_normal(round(seconds * inputs.rate_hz))
    return Clip(samples.astype(np.float32), inputs.rate_hz)


def views_of(inputs, augmentation, seconds=0.3, row_id="a"):
    return augmentation(noise_clip(inputs, seconds), inputs, generator(0, row_id, "simclr"))


def time_last(inputs, view):
    """A view's main input with its frames last: the real ones, and the padding."""
    main = view[inputs.main].movedim(inputs.kind.time, -1)
    frames = int(view["frames"]) if "frames" in view else main.shape[-1]
    return main[..., :frames], main[..., frames:]


def test_views_keep_the_contract_and_the_first_of_sixteen_are_those_of_two(inputs):
    clip = noise_clip(inputs)
    check_views(NoiseAndRoll(), clip, inputs)
    sixteen, two = views_of(inputs, NoiseAndRoll()), views_of(inputs, NoiseAndRoll(2))
    assert len(sixteen) == 16
    for view, same in zip(sixteen, two, strict=False):
        assert all(torch.equal(view[name], same[name]) for name in view)
    mains = {view[inputs.main].numpy().tobytes() for view in sixteen}
    assert len(mains) == 16
    assert inputs(clip)[inputs.main].numpy().tobytes() not in mains
    other = views_of(inputs, NoiseAndRoll(2), row_id="b")
    assert not torch.equal(other[0][inputs.main], two[0][inputs.main])


def test_without_noise_a_view_is_the_plain_one_rolled_by_at_most_the_frames_given(inputs):
    clip = noise_clip(inputs)
    plain, padding = time_last(inputs, inputs(clip))
    step = inputs.rate_hz // 100 if inputs.waveform else 1
    rolls = set()
    for view in views_of(inputs, NoiseAndRoll(200, noise=0, frames=3)):
        real, rest = time_last(inputs, view)
        assert torch.equal(rest, padding)
        fits = [by for by in range(-4, 5) if torch.equal(real, plain.roll(by * step, dims=-1))]
        assert len(fits) == 1
        rolls.update(fits)
    assert rolls == set(range(-3, 4))


def test_the_paper_rolls_by_up_to_ten_frames_of_ten_milliseconds(inputs):
    clip = noise_clip(inputs)
    plain = time_last(inputs, inputs(clip))[0]
    step = inputs.rate_hz // 100 if inputs.waveform else 1
    rolls = {by: plain.roll(by * step, dims=-1) for by in range(-12, 13)}
    drawn = {
        by
        for view in views_of(inputs, NoiseAndRoll(400, noise=0))
        for by, rolled in rolls.items()
        if torch.equal(time_last(inputs, view)[0], rolled)
    }
    assert drawn == set(range(-10, 11))


def test_noise_on_a_spectrogram_lies_between_nothing_and_a_tenth_of_a_nat_and_on_real_frames_only(spectral):
    plain, padding = time_last(spectral, spectral(noise_clip(spectral)))
    assert padding.numel()
    strengths = []
    for view in views_of(spectral, NoiseAndRoll(60, noise=0.1, frames=0)):
        real, rest = time_last(spectral, view)
        assert torch.equal(rest, padding)
        added = (real - plain).double() / spectral.noise_unit
        assert added.min() > -1e-5
        assert added.max() < 0.1 + 1e-5
        strengths.append(float(added.max()))
        assert abs(float(added.mean()) - strengths[-1] / 2) < 0.01  # U(0, 1) is 1/2 in the mean
        if added.dim() == 3:  # CLAP: copies of one spectrogram
            assert (added - added[:1]).abs().max() < 1e-5
    assert min(strengths) < 0.02  # U(0, 1) for each view: spread over all of [0, 0.1]
    assert max(strengths) > 0.08
    assert abs(np.mean(strengths) - 0.05) < 0.015


@pytest.mark.parametrize("scale", [0.1, 0.001])
@pytest.mark.parametrize("do_normalize", [True, False])
def test_noise_on_a_waveform_is_symmetric_and_relative_to_its_standard_deviation(do_normalize, scale):
    inputs = Sound(wave_extractor(do_normalize=do_normalize))
    clip = noise_clip(inputs, scale=scale)
    plain = inputs(clip)["input_values"]
    spread = float(plain.std(correction=0))
    assert spread == pytest.approx(1.0 if do_normalize else scale, rel=0.1)
    strengths = []
    for view in NoiseAndRoll(60, noise=0.1, frames=0)(clip, inputs, generator(0, "a", "simclr")):
        added = (view["input_values"] - plain).double() / spread
        assert added.abs().max() < 0.1 + 1e-5
        strengths.append(float(added.abs().max()))
        assert abs(float(added.mean())) < 0.1 * strengths[-1]  # U(-1, 1)
    assert abs(np.mean(strengths) - 0.05) < 0.015


def test_a_unit_is_what_one_nat_of_power_is_in_the_networks_input(spectral):
    louder = noise_clip(spectral, scale=0.1 * math.sqrt(math.e))
    quiet, loud = (time_last(spectral, spectral(clip))[0] for clip in (noise_clip(spectral), louder))
    heard = slice(3, -3)  # frames at the end hear the padding, whose floor does not move
    moved = ((loud - quiet) / spectral.noise_unit)[..., heard]
    assert (moved - 1).abs().max() < 1e-3


def test_what_whisper_clips_moves_with_its_loudest_number():
    inputs = Sound(whisper_extractor())
    time = np.arange(8_000) / inputs.rate_hz
    tone = np.sin(2 * np.pi * 1000 * time)
    quiet, loud = (
        time_last(inputs, inputs(Clip((a * tone).astype(np.float32), inputs.rate_hz)))[0]
        for a in (0.1, 0.1 * math.sqrt(math.e))
    )
    clipped = quiet == quiet.max() - 2  # 8 in log10 is 2 after (x + 4) / 4
    assert clipped.any()
    assert ((loud - quiet)[clipped] / inputs.noise_unit - 1).abs().max() < 1e-3


def test_units_of_the_real_extractors_are_known_numbers():
    assert Sound(whisper_extractor()).noise_unit == pytest.approx(0.108574, rel=1e-5)  # 1 / ln 10 / 4
    assert Sound(clap_extractor()).noise_unit == pytest.approx(4.342945, rel=1e-6)  # 10 / ln 10 decibels
    assert Sound(ast_extractor(std=4.5689974)).noise_unit == pytest.approx(0.109433, rel=1e-5)  # 1 / (2 std)
    assert Sound(ast_extractor(do_normalize=False)).noise_unit == 1
    assert Sound(wave_extractor()).noise_unit == 1


def test_the_shortest_clip_rolls_round(inputs):
    for view in views_of(inputs, NoiseAndRoll(20), seconds=0.025):
        assert all(torch.isfinite(tensor).all() for tensor in view.values())


def test_views_come_back_from_a_recipes_json():
    objectives = [KL(), SimCLR(augmentation=NoiseAndRoll(4, noise=0.2, frames=3))]
    recipe = Recipe(objectives=objectives)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_json(recipe.to_json()).objectives[1].augmentation == NoiseAndRoll(4, 0.2, 3)
    assert SimCLR().for_modality("audio").augmentation == NoiseAndRoll(16, 0.1, 10)
    settled = SimCLR().for_modality("audio")
    assert (settled.latent, settled.negatives, settled.negative_views, settled.views) == (768, 64, 2, 16)


@pytest.mark.parametrize(
    "options",
    [
        {"views": 0},
        {"views": True},
        {"views": 1.5},
        {"noise": -0.1},
        {"noise": math.inf},
        {"noise": math.nan},
        {"frames": -1},
        {"frames": 0.5},
    ],
)
def test_numbers_that_are_none_are_refused(options):
    (name,) = options
    with pytest.raises(RecipeError, match=f"{name}=.*; expected"):
        NoiseAndRoll(**options)
