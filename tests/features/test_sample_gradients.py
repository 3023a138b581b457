"""Blocks by projections that read the factors: the engine hands these over, and never forms the gradient."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from test_engine import IDS, KL_, SIMCLR_, TARGET, oracle_block
from torch import nn

from small import noise_pictures, small_backbone, small_module
from small_text import BERT, TEXTS, tf, wordpiece
from sporeprint import KL, Backbone, Fungi, Recipe, SimCLR
from sporeprint.features import sample_gradients as gradients
from sporeprint.features import saved
from sporeprint.gradients.projections.projection import PROJECTIONS, Dense, Rademacher, make_projection
from sporeprint.objectives.views.text import Deletions

KINDS = sorted(name for name, kind in PROJECTIONS.items() if kind is not Rademacher)

PREPROCESS = small_backbone().preprocess


@pytest.fixture(scope="module")
def pictures():
    return noise_pictures(6)


def make(name, backbone=None, objectives=(KL_, SIMCLR_), **options):
    return Fungi(Recipe(objectives=objectives, dim=24, seed=3, projection=name, layers=0), backbone=backbone, **options)


@pytest.fixture
def unformed(monkeypatch):
    def refuse(*_):
        raise AssertionError("the gradient was formed")

    monkeypatch.setattr(gradients, "weight_gradients", refuse)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_blocks_equal_plain_autograd_and_the_explicit_matrix(pictures, name, pooling, unformed):
    targets = ["blocks.0.mlp.fc2", TARGET]
    fungi = make(name, small_backbone(dtype=torch.float64, target=targets, pooling=pooling))
    blocks = fungi.fit_blocks(pictures, ids=IDS)
    for objective in (KL_, SIMCLR_):
        for path in targets:
            expected = oracle_block(fungi, objective, pictures, path=path, pooling=pooling)
            assert np.abs(blocks[f"{objective.name}@{path}"] - expected).max() < 1e-6


@pytest.mark.parametrize("name", KINDS)
def test_a_target_without_a_bias(pictures, name, unformed):
    module = small_module(dtype=torch.float64)
    module.blocks[1].attn.proj = nn.Linear(16, 16, bias=False, dtype=torch.float64)
    fungi = make(name, Backbone(module, preprocess=PREPROCESS, target=TARGET), objectives=(KL_,))
    block = fungi.blocks(pictures[:2], ids=IDS[:2])["kl"]
    layer = module.blocks[1].attn.proj
    layer.requires_grad_()
    for picture, row in zip(pictures, block, strict=False):
        embedding = module(PREPROCESS(picture).unsqueeze(0).double())[:, 0]
        latents = fungi.heads["kl"].double()(nn.functional.normalize(embedding)).unsqueeze(0)
        (gradient,) = torch.autograd.grad(KL_.loss(latents).sum(), layer.weight)
        expected = fungi.projection.matrix().double() @ gradient.flatten()
        np.testing.assert_allclose(row, expected / expected.norm(), atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("views", [1, 2])
def test_a_row_of_several_passes_has_the_blocks_of_one(pictures, name, views, monkeypatch):
    backbone = small_backbone(dtype=torch.float64)
    expected = make(name, backbone).fit_blocks(pictures[:3])
    patched = type(backbone.preprocess)
    monkeypatch.setattr(patched, "length", lambda inputs, ready: 1)
    monkeypatch.setattr(patched, "budget", views)
    for block, values in make(name, backbone).fit_blocks(pictures[:3]).items():
        np.testing.assert_allclose(values, expected[block], atol=2e-7, err_msg=block)


@pytest.mark.parametrize("name", KINDS)
def test_texts_of_different_lengths_do_not_read_each_others_padding(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = tf.BertModel(tf.BertConfig(**BERT)).double().eval()
    simclr = SimCLR(latent=6, augmentation=Deletions(3), negatives=2)
    fungi = make(name, Backbone(module, preprocess=wordpiece(), pooling="mean"), objectives=(KL(latent=9), simclr))
    together = fungi.fit_blocks(TEXTS, ids=[f"text {at}" for at in range(len(TEXTS))])
    for at, text in enumerate(TEXTS):
        for block, values in fungi.blocks([text], ids=[f"text {at}"]).items():
            np.testing.assert_allclose(values[0], together[block][at], atol=2e-7, err_msg=block)


@dataclass(frozen=True)
class Faint(KL):
    factor: float = 1.0

    def loss(self, latents, **extras):
        return super().loss(latents, **extras) * self.factor


@pytest.mark.parametrize("name", [*KINDS, "rademacher"])
def test_gradients_near_the_smallest_float32_are_projected_as_others_are(pictures, name):
    blocks = [
        make(name, small_backbone(), objectives=(Faint(latent=24, factor=factor),)).blocks(pictures)["kl"]
        for factor in (1.0, 2.0**-112)
    ]
    np.testing.assert_allclose(blocks[0], blocks[1], atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_saved_it_is_its_name_and_seed_and_gives_the_same_features(pictures, name, tmp_path):
    fungi = make(name, small_backbone())
    expected = fungi.fit_blocks(pictures, ids=IDS)
    fungi.save(tmp_path)
    assert not [key for key in saved.unpack_parts(saved.read_folder(tmp_path), "")[1] if key.startswith("projections/")]
    loaded = Fungi.load(tmp_path, backbone=small_backbone())
    assert type(loaded.projection) is PROJECTIONS[name]
    for block, values in loaded.blocks(pictures, ids=IDS).items():
        assert np.array_equal(values, expected[block]), block


class Summed:
    """A projection of a user's, which reads the factors."""

    dim = 16

    def __call__(self, gradients):
        return gradients.unflatten(1, (16, 17))[:, :, -1]

    def matrix(self):
        return torch.eye(16 * 17)[16::17]

    def of_factors(self, inputs, sensitivities, bias=True):
        assert bias
        return sensitivities.sum(dim=1)


class Plain(Summed):
    of_factors = None


def test_projections_can_be_replaced_by_any_others(pictures, tmp_path):
    other = make_projection("tensorsketch", 24, (16, 17), seed=8)
    rademacher = Rademacher(24, 16 * 17, seed=8)
    for projection in (other, Dense(other.matrix()), Summed(), Plain(), rademacher):
        fungi = make("sparse", small_backbone(dtype=torch.float64))
        fungi.projection = projection
        blocks = fungi.fit_blocks(pictures, ids=IDS)
        fungi.save(tmp_path)
        again = Fungi.load(tmp_path, backbone=small_backbone(dtype=torch.float64)).blocks(pictures, ids=IDS)
        reference = make("sparse", small_backbone(dtype=torch.float64))
        reference.projection = Dense(projection.matrix())
        expected = reference.fit_blocks(pictures, ids=IDS)
        for name in ("kl", "simclr"):
            assert blocks[name].shape == (6, projection.dim)
            np.testing.assert_allclose(blocks[name], expected[name], atol=1e-6)
            np.testing.assert_allclose(again[name], expected[name], atol=1e-6)
