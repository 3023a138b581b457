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


@pytest.fixture(params=FAMILIES)
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


def oracle_embeddings(fungi, family, objective, clip, row_id):
    """[V, E], one view at a time, unpadded, with autograd back to the copied network's parameters."""
    inputs = fungi.network.preprocess
    module = copy.deepcopy(fungi.network.module)
    whole = objective is None or objective.augmentation in (None, Whole())
    views = (Whole() if whole else objective.augmentation)(
        inputs.prepare(inputs.load(clip)), inputs, generator(3, row_id, "whole" if whole else objective.name)
    )
    return module, torch.cat([family.embed(module, alone(view, fungi.network.dtype)) for view in views])


def oracle_gradient(fungi, family, objective, clip, row_id):
    """[O * (I + 1)] of one row."""
    module, embeddings = oracle_embeddings(fungi, family, objective, clip, row_id)
    if objective.normalize:
        embeddings = embeddings / embeddings.pow(2).sum(dim=1, keepdim=True).sqrt()
    head = fungi.heads[objective.name]
    latents = (embeddings @ head.weight.to(embeddings).T + head.bias.to(embeddings))[None]
    extras = {"negatives": fungi.negatives["simclr"].to(embeddings)} if objective.name == "simclr" else {}
    layer = module.get_submodule(first_there(family.targets, module))
    weight, bias = torch.autograd.grad(objective.loss(latents, **extras).sum(), [layer.weight, layer.bias])
    return torch.cat([weight, bias[:, None]], dim=1).flatten().detach()


def test_default_target_and_pooling_are_the_familys_and_the_contract_holds(family):
    module = family.module()
    backbone = Backbone(module, preprocess=family.extractor())
    assert backbone.module is family.part(module)
    assert list(backbone.targets) == [first_there(family.targets, backbone.module)]
    assert (backbone.pooling, backbone.modality, backbone.preprocess.pads) == (family.pooling, "audio", family.pads)
    assert backbone.width == 16
    check_backbone(backbone)


def test_gradients_of_one_view_and_of_sixteen_equal_plain_autograd_one_view_at_a_time(family):
    fungi = make(family, torch.float64)
    objectives = fungi.engine.objectives
    assert [objective.views for objective in objectives] == [1, 16]
    recorder = Recorder()
    fungi.draw_negatives(list(zip(IDS, CLIPS, strict=True)))
    assert fungi.negatives["simclr"].shape == (6, 10)
    fungi.projection = recorder
    blocks = fungi.blocks(CLIPS, ids=IDS)
    for objective in objectives:
        gradients = recorder.rows[: len(CLIPS)]
        del recorder.rows[: len(CLIPS)]
        taken = set()
        for at, (clip, row_id) in enumerate(zip(CLIPS, IDS, strict=True)):
            expected = normalize(oracle_gradient(fungi, family, objective, clip, row_id), dim=0)
            # rows are in the order of their lengths
            errors = torch.stack([(row - expected).norm() for row in gradients])
            assert errors.min() < 1e-9
            taken.add(int(errors.argmin()))
            np.testing.assert_allclose(blocks[objective.name][at], normalize(expected[:12], dim=0).numpy(), atol=1e-6)
        assert len(taken) == len(CLIPS)


def test_in_float32_gradients_of_one_clip_are_no_further_from_the_exact_ones_than_autograds(family):
    exact, single = make(family, torch.float64), make(family)
    exact.draw_negatives(list(zip(IDS, CLIPS, strict=True)))
    single.negatives["simclr"] = exact.negatives["simclr"]
    recorder = single.projection = Recorder()
    single.blocks(CLIPS[:1], ids=IDS[:1])
    for objective, gradient in zip(single.engine.objectives, recorder.rows, strict=True):
        expected, plain = (
            normalize(oracle_gradient(fungi, family, objective, CLIPS[0], IDS[0]).double(), dim=0)
            for fungi in (exact, single)
        )
        assert (gradient - expected).norm() < 1e-5 + 3 * (plain - expected).norm()  # of SimCLR's much cancels out
        assert (plain - expected).norm() < 1e-4


def test_embedding_views_and_negatives_equal_the_models_own_outputs(family):
    fungi = make(family, torch.float64)
    objective = fungi.engine.objectives[1]
    fungi.draw_negatives(list(zip(IDS[:3], CLIPS[:3], strict=True)))
    blocks = fungi.blocks(CLIPS, ids=IDS)
    head, bank = fungi.heads["simclr"], []
    with torch.no_grad():
        for at, (clip, row_id) in enumerate(zip(CLIPS, IDS, strict=True)):
            plain = oracle_embeddings(fungi, family, None, clip, row_id)[1][0]
            views = oracle_embeddings(fungi, family, objective, clip, row_id)[1]
            mean = normalize(views, dim=1).mean(dim=0)
            for name, value in (("embedding", plain), ("simclr.views", mean)):
                np.testing.assert_allclose(blocks[name][at], normalize(value, dim=0).numpy(), atol=1e-7)
            bank += list(views[:2] @ head.weight.double().T + head.bias.double())
    drawn = sorted(fungi.negatives["simclr"].double().tolist())
    np.testing.assert_allclose(drawn, sorted(torch.stack(bank[:6]).tolist()), atol=1e-5)


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
    for at, (clip, row_id) in enumerate(zip(CLIPS, IDS, strict=True)):
        for name, block in fungi.blocks([clip], ids=[row_id]).items():
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
