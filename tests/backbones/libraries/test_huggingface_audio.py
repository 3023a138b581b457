"""Every audio family, tiny and with random weights, against plain autograd and the model's own outputs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from small import PREPROCESS
from small_audio import FAMILIES, LAYER, STABLE, first_there, hubert, tf, tones, wav2vec2, wave_extractor
from sporeprint import KL, Fungi, Recipe, SimCLR
from sporeprint.backbones.backbone import Backbone
from sporeprint.errors import BackboneError
from sporeprint.features.contracts import check_backbone
from sporeprint.objectives.view_sets import generator
from sporeprint.objectives.views.whole import Whole

IDS = ["a", "b", "c", "d"]
OBJECTIVES = (KL(latent=12), SimCLR(latent=10, negatives=3))
CLIPS = [(clip, 16_000) for clip in tones()]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def alone(view, dtype=torch.float64):
    return {name: (tensor.to(dtype) if tensor.is_floating_point() else tensor)[None] for name, tensor in view.items()}


class Recorder:
    """Stands in for a projection: keeps the gradients, in their own precision, and passes the first numbers on."""

    dim = 12

    def __init__(self):
        self.rows = []

    def __call__(self, gradients):
        self.rows += list(gradients.double())
        return gradients[:, : self.dim]


def make(family, dtype=torch.float32, objectives=OBJECTIVES):
    return Fungi(Recipe(objectives=objectives, dim=12, layers=2, seed=3), backbone=family.backbone(dtype))


class Oracle:
    """One view at a time, unpadded, with autograd back to the parameters of a copy of the network."""

    def __init__(self, fungi, family):
        self.fungi, self.family = fungi, family
        self.module = copy.deepcopy(fungi.network.module)

    def embeddings(self, objective, clip, row_id):
        """[V, E] of one row."""
        inputs = self.fungi.network.preprocess
        whole = objective.augmentation in (None, Whole())
        views = (Whole() if whole else objective.augmentation)(
            inputs.prepare(inputs.load(clip)), inputs, generator(3, row_id, "whole" if whole else objective.name)
        )
        return torch.cat([self.family.embed(self.module, alone(view, self.fungi.network.dtype)) for view in views])

    def gradient(self, objective, embeddings):
        """[O * (I + 1)] of one row, of length 1."""
        if objective.normalize:
            embeddings = embeddings / embeddings.pow(2).sum(dim=1, keepdim=True).sqrt()
        head = self.fungi.heads[objective.name]
        latents = (embeddings @ head.weight.to(embeddings).T + head.bias.to(embeddings))[None]
        extras = {"negatives": self.fungi.negatives["simclr"].to(embeddings)} if objective.name == "simclr" else {}
        layer = self.module.get_submodule(first_there(self.family.targets, self.module))
        weight, bias = torch.autograd.grad(objective.loss(latents, **extras).sum(), [layer.weight, layer.bias])
        return normalize(torch.cat([weight, bias[:, None]], dim=1).flatten().detach().double(), dim=0)


@pytest.fixture(scope="module")
def exact(family):
    """(Fungi in float64, its blocks of CLIPS, its gradients by objective and those of the oracle, its embeddings)."""
    fungi = make(family, torch.float64)
    fungi.draw_negatives(list(zip(IDS[:3], CLIPS[:3], strict=True)))
    recorder = fungi.projection = Recorder()
    blocks = fungi.blocks(CLIPS, ids=IDS)
    oracle = Oracle(fungi, family)
    gradients, slow, embeddings = {}, {}, {}
    for objective in fungi.engine.objectives:
        gradients[objective.name] = torch.stack([recorder.rows.pop(0) for _ in CLIPS])
        of_rows = [oracle.embeddings(objective, *row) for row in zip(CLIPS, IDS, strict=True)]
        slow[objective.name] = torch.stack([oracle.gradient(objective, rows) for rows in of_rows])
        embeddings[objective.name] = [rows.detach() for rows in of_rows]
    return fungi, blocks, gradients, slow, embeddings


def test_default_target_and_pooling_are_the_familys_and_the_contract_holds(family):
    module = family.module()
    backbone = Backbone(module, preprocess=family.extractor())
    assert backbone.module is family.part(module)
    assert list(backbone.targets) == [first_there(family.targets, backbone.module)]
    assert (backbone.pooling, backbone.modality, backbone.preprocess.pads) == (family.pooling, "audio", family.pads)
    assert backbone.width == 16
    check_backbone(backbone)


def test_gradients_of_one_view_and_of_sixteen_equal_plain_autograd_one_view_at_a_time(exact):
    fungi, blocks, gradients, slow, _ = exact
    assert [objective.views for objective in fungi.engine.objectives] == [1, 16]
    assert fungi.negatives["simclr"].shape == (6, 10)
    for name, expected in slow.items():
        # rows are in the order of their lengths
        errors = torch.cdist(expected, gradients[name], compute_mode="donot_use_mm_for_euclid_dist")
        assert errors.min(dim=1).values.max() < 1e-9
        assert sorted(errors.argmin(dim=1).tolist()) == list(range(len(CLIPS)))
        np.testing.assert_allclose(blocks[name], normalize(expected[:, :12], dim=1).numpy(), atol=1e-6)


def test_in_float32_gradients_of_one_clip_are_no_further_from_the_exact_ones_than_autograds(family, exact):
    single = make(family)
    single.negatives["simclr"] = exact[0].negatives["simclr"]
    recorder = single.projection = Recorder()
    single.blocks(CLIPS[:1], ids=IDS[:1])
    oracle = Oracle(single, family)
    for objective, gradient in zip(single.engine.objectives, recorder.rows, strict=True):
        expected = exact[3][objective.name][0]
        plain = oracle.gradient(objective, oracle.embeddings(objective, CLIPS[0], IDS[0]))
        assert (gradient - expected).norm() < 1e-5 + 3 * (plain - expected).norm()  # of SimCLR's much cancels out
        assert (plain - expected).norm() < 1e-4


def test_embedding_views_and_negatives_equal_the_models_own_outputs(exact):
    fungi, blocks, _, _, embeddings = exact
    plain = torch.cat(embeddings["kl"])
    views = torch.stack(embeddings["simclr"])
    mean = normalize(views, dim=2).mean(dim=1)
    for name, value in (("embedding", plain), ("simclr.views", mean)):
        np.testing.assert_allclose(blocks[name], normalize(value, dim=1).numpy(), atol=1e-7)
    head = fungi.heads["simclr"]
    bank = views[:3, :2].flatten(0, 1) @ head.weight.double().T + head.bias.double()
    drawn = sorted(fungi.negatives["simclr"].double().tolist())
    np.testing.assert_allclose(drawn, sorted(bank.tolist()), atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-8)])
def test_a_row_does_not_depend_on_its_batch(family, dtype, tolerance):
    backbone = family.backbone(dtype)
    inputs = backbone.preprocess
    views = [inputs(inputs.prepare(inputs.load(clip))) for clip in CLIPS]
    views = views if inputs.pads else [views[0], views[3]]

    def embed(clips):
        with backbone.run(inputs.collate(clips), layers=2) as one_pass:
            return {"embedding": one_pass.embedding.detach(), **one_pass.layers}

    together = embed(views)
    for at, view in enumerate(views):
        for name, alone in embed([view]).items():
            assert (together[name][at] - alone[0]).norm() <= tolerance * alone[0].norm(), name


def test_blocks_of_a_row_alone_are_those_among_others(family):
    fungi = make(family)
    together = fungi.fit_blocks(CLIPS, ids=IDS)
    for at in (0, 2):  # one of two equal lengths, and the shortest
        for name, block in fungi.blocks([CLIPS[at]], ids=[IDS[at]]).items():
            limit = 1e-5 if name in ("embedding", "simclr.views") or "-" in name else 2e-4  # of a small gradient
            assert np.linalg.norm(block[0] - together[name][at]) < limit, name


def test_layers_are_the_means_of_each_blocks_real_tokens():
    for name in ("wav2vec2-stable", "whisper", "wav2vec2-group"):
        family = FAMILIES[name]
        fungi = make(family, torch.float64, objectives=())
        blocks = fungi.blocks(CLIPS, ids=IDS)
        assert list(blocks) == ["embedding", "tokens-1", "tokens-2"]
        inputs, module = fungi.network.preprocess, fungi.network.module
        block = (module.encoder if hasattr(module, "encoder") else module).layers[0]
        for at, clip in enumerate(CLIPS):
            view = alone(inputs(inputs.prepare(inputs.load(clip))))
            outputs = []
            handle = block.register_forward_hook(lambda _, __, output, outputs=outputs: outputs.append(output))
            with torch.no_grad():
                family.embed(module, view)
            handle.remove()
            tokens = outputs[0] if isinstance(outputs[0], torch.Tensor) else outputs[0][0]
            count = -(-int(view["frames"]) // 2) if "frames" in view else tokens.shape[1]
            expected = normalize(tokens[0, :count].mean(dim=0), dim=0)
            np.testing.assert_allclose(blocks["tokens-1"][at], expected.numpy(), atol=1e-6)


def alone_and_padded(module):
    """Frames of a short waveform by itself, and padded next to a longer one, with the mask."""
    short, long = (
        torch.from_numpy(clip)[None].double() for clip in tones((0.055, 0.09))
    )  # 11 frames: an adapter reads two by two
    padded = torch.nn.functional.pad(short, (0, long.shape[1] - short.shape[1]))
    mask = torch.zeros_like(long, dtype=torch.long)
    mask[:, : short.shape[1]] = 1
    with torch.no_grad():
        alone = module(short).last_hidden_state[0]
        joint = module(torch.cat([padded, long]), attention_mask=torch.cat([mask, mask * 0 + 1])).last_hidden_state[0]
    return alone, joint[: len(alone)]


@pytest.mark.parametrize("name", [name for name, member in FAMILIES.items() if member.extractor is wave_extractor])
def test_waveforms_are_padded_where_and_only_where_padding_changes_no_frame(name):
    family = FAMILIES[name]
    alone, joint = alone_and_padded(family.part(family.module(torch.float64)))
    same = float((alone - joint).norm() / alone.norm())
    assert (same < 1e-12) == family.pads, same


def test_waves_that_cannot_be_padded_share_a_pass_with_equal_lengths_only():
    lengths = {}
    for name in ("hubert-group", "hubert-stable"):
        fungi = make(FAMILIES[name], objectives=())
        fungi.network.quick = False  # whose first pass tries the network's parts
        shapes = lengths[name] = []
        handle = fungi.network.module.register_forward_hook(
            lambda _, __, named, ___, shapes=shapes: shapes.append(tuple(named["input_values"].shape)), with_kwargs=True
        )
        fungi.blocks(CLIPS, ids=IDS)
        handle.remove()
    assert lengths == {"hubert-group": [(1, 496), (1, 1120), (2, 1920)], "hubert-stable": [(4, 1920)]}


def test_a_pass_holds_a_minute_of_waveforms():
    fungi = make(FAMILIES["wav2vec2-stable"], objectives=(SimCLR(latent=4, negatives=0),))
    shapes = []
    handle = fungi.network.module.register_forward_hook(
        lambda _, __, named, ___: shapes.append(tuple(named["input_values"].shape)), with_kwargs=True
    )
    fungi.blocks([(clip, 16_000) for clip in tones((1.0, 1.0, 1.0, 1.0, 5.0))])
    handle.remove()
    assert [shape for shape in shapes if shape[0] >= 8] == [(48, 16_000), (16, 16_000), (8, 80_000), (8, 80_000)]


def test_the_mask_of_frames_is_the_models_own():
    module = wav2vec2(**STABLE)
    backbone = Backbone(module, preprocess=wave_extractor())
    inputs = backbone.preprocess
    clips = tones((0.025, 479 / 16_000, 0.03, 0.05, 0.1))
    batch = inputs.collate([inputs(inputs.prepare(inputs.load(clip))) for clip in clips])
    frames = module.feature_extractor(batch["input_values"]).shape[-1]
    expected = module._get_feature_vector_attention_mask(frames, batch["attention_mask"])
    assert torch.equal(backbone.adapter.real(batch), expected)
    assert expected.sum(dim=1).tolist() == [5, 5, 6, 10, 20]  # a frame for every whole 80 samples


def test_networks_that_are_not_known_say_so():
    speech = tf.Speech2TextModel(
        tf.Speech2TextConfig(d_model=16, encoder_layers=1, decoder_layers=1, vocab_size=9, encoder_attention_heads=2)
    )
    with pytest.raises(BackboneError, match="expected Whisper, AST, CLAP, wav2vec 2"):
        Backbone(speech, preprocess=wave_extractor())
    with pytest.raises(BackboneError, match="takes audio, its preprocess makes image"):
        Backbone(hubert(**LAYER), preprocess=PREPROCESS)
    with pytest.raises(BackboneError, match="give preprocess=feature_extractor"):
        Backbone(hubert(**LAYER))
