"""Blocks against a slow oracle: one row at a time, plain autograd on the layer's parameters, none of our hooks."""

import copy
import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from small import PREPROCESS, noise_pictures, small_backbone, small_module
from sporeprint import DINO, KL, Fungi, Recipe, SimCLR
from sporeprint.backbones.backbone import Backbone
from sporeprint.errors import RecipeError
from sporeprint.features.engine import make_head
from sporeprint.gradients.projections.projection import Dense
from sporeprint.objectives import Objective
from sporeprint.objectives.view_sets import generator, view_sets
from sporeprint.objectives.views.image import Crops, Patches
from sporeprint.objectives.views.whole import Whole

KL_, DINO_ = KL(latent=24), DINO(latent=20, augmentation=Crops(2, 3))
SIMCLR_ = SimCLR(latent=12, augmentation=Patches(3), negatives=4)
TARGET = "blocks.1.attn.proj"
IDS = [f"row-{number}" for number in range(6)]


@pytest.fixture(scope="module")
def pictures():
    return noise_pictures(6)


def make(dtype=torch.float32, objectives=(KL_, DINO_, SIMCLR_), dim=24, pooling="auto", targets=None, **options):
    backbone = small_backbone(dtype=dtype, pooling=pooling, target=targets)
    recipe = Recipe(objectives=objectives, dim=dim, layers=2, seed=3, pooling=pooling, targets=targets)
    return Fungi(recipe, backbone=backbone, **options)


def pool(tokens, pooling):
    return tokens[:, 1:].mean(dim=1) if pooling == "mean" else tokens[:, 0]


def oracle_views(fungi, objective, image, row_id):
    name = "whole" if objective.augmentation == Whole() else objective.name
    return torch.stack(list(objective.augmentation(image, PREPROCESS, generator(3, row_id, name))))


def oracle_gradient(fungi, objective, image, row_id, path, pooling):
    """[O, I + 1] of one row, in float64."""
    module = copy.deepcopy(fungi.network.module).double()
    layer = module.get_submodule(path)
    views = oracle_views(fungi, objective, image, row_id).to(fungi.network.dtype).double()
    embeddings = pool(module(views), pooling)
    if objective.name != "simclr":
        embeddings = embeddings / embeddings.pow(2).sum(dim=1, keepdim=True).sqrt()

    def latents(name):
        head = fungi.heads[name]
        return (embeddings @ head.weight.double().T + head.bias.double()).unsqueeze(0)

    extras = {}
    if objective.name == "dino":
        extras["teacher"] = latents("dino_teacher").detach()
    if objective.name == "simclr":
        extras["negatives"] = fungi.negatives["simclr"].double()
    loss = objective.loss(latents(objective.name), **extras)
    weight, bias = torch.autograd.grad(loss.sum(), [layer.weight, layer.bias])
    return torch.cat([weight, bias.unsqueeze(1)], dim=1)


def oracle_block(fungi, objective, images, path=TARGET, pooling="cls"):
    rows = []
    for row_id, image in zip(IDS, images, strict=False):
        gradient = oracle_gradient(fungi, objective, image, row_id, path, pooling).flatten()
        matrix = fungi.projections[path].matrix().double()
        assert matrix.shape == (24, gradient.numel())
        projected = torch.stack([(row * gradient).sum() for row in matrix])
        rows.append(projected / projected.norm())
    return torch.stack(rows).numpy()


def relative_error(block, expected):
    return (np.linalg.norm(block - expected, axis=1) / np.linalg.norm(expected, axis=1)).max()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradient_blocks_equal_plain_autograd_one_row_at_a_time(pictures, dtype, pooling):
    fungi = make(dtype, pooling=pooling)
    blocks = fungi.fit_blocks(pictures, ids=IDS)
    for objective in (KL_, DINO_, SIMCLR_):
        expected = oracle_block(fungi, objective, pictures, pooling=pooling)
        block = blocks[objective.name].astype(np.float64)
        assert block.shape == (6, 24)
        if dtype == torch.float64:
            assert ((block * expected).sum(axis=1) / np.linalg.norm(block, axis=1)).min() > 1 - 1e-9
            assert np.abs(block - expected).max() < 1e-6
        else:
            assert relative_error(block, expected) < 1e-5


def test_two_targets_are_read_from_one_pass(pictures):
    targets = ["blocks.0.mlp.fc2", TARGET]
    fungi = make(torch.float64, objectives=(KL_, SIMCLR_), targets=targets)
    blocks = fungi.fit_blocks(pictures, ids=IDS)
    assert [name for name in blocks if "@" in name] == [f"{o}@{path}" for o in ("kl", "simclr") for path in targets]
    for objective in (KL_, SIMCLR_):
        for path in targets:
            expected = oracle_block(fungi, objective, pictures, path=path)
            assert np.abs(blocks[f"{objective.name}@{path}"] - expected).max() < 1e-6


@pytest.mark.parametrize("pooling", ["cls", "mean"])  # after the last norm CLS tokens are of one length, means are not
def test_embedding_layers_and_views_equal_hand_computed_ones(pictures, pooling):
    fungi = make(pooling=pooling)
    blocks = fungi.fit_blocks(pictures, ids=IDS)
    module = copy.deepcopy(fungi.network.module)
    assert list(blocks) == [
        *("embedding", "cls-1", "patches-1", "cls-2", "patches-2"),
        *("dino.views", "simclr.views", "kl", "dino", "simclr"),
    ]
    with torch.no_grad():
        for at, (row_id, image) in enumerate(zip(IDS, pictures, strict=True)):
            tokens = module.embed(PREPROCESS(image).unsqueeze(0))
            expected = {"embedding": pool(module(PREPROCESS(image).unsqueeze(0)), pooling)[0]}
            for number, block in enumerate(module.blocks, start=1):
                tokens = block(tokens)
                expected |= {f"cls-{number}": tokens[0, 0], f"patches-{number}": tokens[0, 1:].mean(dim=0)}
            for objective in (DINO_, SIMCLR_):
                embeddings = pool(module(oracle_views(fungi, objective, image, row_id)), pooling)
                expected[f"{objective.name}.views"] = normalize(embeddings, dim=1).mean(dim=0)
            for name, value in expected.items():
                value = value / value.norm()
                assert np.abs(blocks[name][at] - value.numpy()).max() < 1e-6, name


def test_maxima_of_layers_equal_hand_computed_ones(pictures):
    backbone = small_backbone(pooling="mean")
    recipe = Recipe(objectives=(DINO_, SIMCLR_), layers=1, layer_kinds=("max", "mean"), seed=3)
    fungi = Fungi(recipe, backbone=backbone)
    blocks = fungi.fit_blocks(pictures, ids=IDS)
    module = copy.deepcopy(backbone.module)
    assert list(fungi.block_info())[:5] == ["embedding", "max-2", "patches-2", "dino.views", "simclr.views"]
    assert set(blocks) == set(fungi.block_info())
    with torch.no_grad():
        for at, image in enumerate(pictures):
            tokens = module.embed(PREPROCESS(image).unsqueeze(0))
            for block in module.blocks:
                tokens = block(tokens)
            expected = torch.stack(list(tokens[0, 1:])).max(dim=0).values
            assert np.abs(blocks["max-2"][at] - (expected / expected.norm()).numpy()).max() < 1e-5


def test_a_token_that_the_backbone_has_not_is_no_kind_of_layer():
    with pytest.raises(RecipeError, match=r"layer_kinds='last': TinyViT has no such .* here: cls, mean, max"):
        Fungi(Recipe(layer_kinds="last"), backbone=small_backbone()).block_info()
    with pytest.raises(RecipeError, match="layer_kinds='median'; expected one of: cls, last, mean, max"):
        Recipe(layer_kinds=("median",))


def test_every_block_is_float32_of_unit_rows(pictures):
    for name, block in make().fit_blocks(pictures).items():
        assert block.dtype == np.float32, name
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1, rtol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def fitted(pictures):
    fungi = make()
    return fungi, fungi.fit_blocks(pictures, ids=IDS)


def same(actual, expected, tolerance=1e-5):
    assert list(actual) == list(expected)
    for name in actual:
        assert relative_error(actual[name], expected[name]) < tolerance, name


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_blocks_do_not_depend_on_batch_size_or_workers(pictures, fitted, batch_size, workers):
    fungi = make(batch_size=batch_size, workers=workers)
    same(fungi.fit_blocks(pictures, ids=IDS), fitted[1])


def test_blocks_do_not_depend_on_order_or_company(pictures, fitted):
    fungi, blocks = fitted
    turned = fungi.blocks(pictures[::-1], ids=IDS[::-1])
    same({name: values[::-1] for name, values in turned.items()}, blocks)
    for at in range(6):
        alone = fungi.blocks([pictures[at]], ids=[IDS[at]])
        same(alone, {name: values[[at]] for name, values in blocks.items()})


def test_views_follow_the_id_and_without_one_the_content(pictures, fitted):
    fungi, blocks = fitted
    renamed = fungi.blocks(pictures, ids=[f"other-{row_id}" for row_id in IDS])
    same({"kl": renamed["kl"]}, {"kl": blocks["kl"]})  # the plain view draws nothing
    assert relative_error(renamed["dino"], blocks["dino"]) > 0.01
    unnamed = fungi.blocks(pictures)
    copies = fungi.blocks([pictures[3].copy(), pictures[0]])
    same(copies, {name: values[[3, 0]] for name, values in unnamed.items()})
    assert relative_error(unnamed["dino"], blocks["dino"]) > 0.01


def test_another_seed_gives_other_heads_views_negatives_and_projection(pictures, fitted):
    fungi, blocks = fitted
    other = Fungi(replace(fungi.recipe, seed=4), backbone=fungi.network)
    changed = other.fit_blocks(pictures, ids=IDS)
    assert not torch.equal(other.projection.matrix(), fungi.projection.matrix())
    for name in ("kl", "dino", "dino_teacher", "simclr"):
        assert not torch.equal(other.heads[name].weight, fungi.heads[name].weight)
    assert relative_error(changed["dino.views"], blocks["dino.views"]) > 0.001
    np.testing.assert_allclose(changed["embedding"], blocks["embedding"], atol=1e-6)


def test_a_head_is_drawn_from_pytorchs_default_distribution():
    head = make_head(0, "kl", 400, 300)
    assert not head.weight.requires_grad
    assert not head.bias.requires_grad
    for parameter in (head.weight, head.bias):
        assert parameter.abs().max() <= 1 / 20
        assert parameter.abs().max() > 0.95 / 20
        assert parameter.mean().abs() < 0.1 / 20
    assert head.weight.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.02)
    assert torch.equal(head.weight, make_head(0, "kl", 400, 300).weight)
    assert not torch.equal(head.weight, make_head(0, "dino", 400, 300).weight)


# Passes


class Counting:
    """Counts the views that go through a network."""

    def __init__(self, module):
        self.views = 0
        self.handle = module.blocks[0].register_forward_hook(self.count)

    def count(self, _, args, output):
        self.views += len(args[0])

    def take(self):
        taken, self.views = self.views, 0
        return taken


@dataclass(frozen=True)
class Spread(Objective):
    """Another objective on crops: the latents' spread."""

    name: str = "spread"
    latent: int = 8
    augmentation: Crops = field(default_factory=lambda: Crops(2, 3))

    def loss(self, latents):
        return latents.var(dim=1).sum(dim=1)


def test_each_set_of_views_passes_once_whatever_shares_it(pictures):
    backbone = small_backbone()
    count = Counting(backbone.module)

    def passes(*objectives):
        fungi = Fungi(Recipe(objectives=objectives, layers=2), backbone=backbone)
        fungi.negatives["simclr"] = torch.randn(5, 12)
        fungi.blocks(pictures[:4])
        return count.take() / 4

    passes()  # the first passes try the network's parts
    assert passes() == 1
    assert passes(KL_) == 1
    assert passes(KL_, KL(name="kl-15", temperature=15.0)) == 1
    assert passes(DINO_) == 1 + 5
    assert passes(DINO_, Spread()) == 1 + 5
    assert passes(DINO_, replace(DINO_, name="dino-7", augmentation=Crops(2, 5))) == 1 + 5 + 7
    assert passes(KL_, DINO_, Spread(), SIMCLR_) == 1 + 5 + 9


def test_sharing_views_changes_no_number(pictures):
    backbone = small_backbone()
    alone = Fungi(Recipe(objectives=[DINO_]), backbone=backbone).blocks(pictures, ids=IDS)
    shared = Fungi(Recipe(objectives=[DINO_, Spread()]), backbone=backbone).blocks(pictures, ids=IDS)
    same({"dino": shared["dino"], "dino.views": shared["dino.views"]}, {k: alone[k] for k in ("dino", "dino.views")})
    assert shared["spread"].shape == (6, 16)
    assert "spread.views" not in shared


def test_fit_transform_computes_every_rows_blocks_once(pictures):
    backbone = small_backbone()
    Fungi(Recipe(objectives=[]), backbone=backbone).blocks(pictures[:1])  # the first passes try the network's parts
    count = Counting(backbone.module)
    Fungi(Recipe(objectives=[KL_, SIMCLR_]), backbone=backbone).fit_transform(pictures)
    negatives = 4 * 9
    assert count.take() == 6 * (1 + 9) + negatives
    Fungi(Recipe(objectives=[KL_]), backbone=backbone).fit_transform(pictures)
    assert count.take() == 6


def test_the_table_of_passes_names_every_block_with_its_cost(pictures):
    fungi = make(objectives=(KL_, DINO_, Spread(), SIMCLR_))
    info = fungi.block_info()
    blocks = fungi.fit_blocks(pictures)
    assert set(info) == set(blocks)
    costs = {name: (block["family"], block["views"], block["passes"]) for name, block in info.items()}
    assert costs["embedding"] == ("embedding", "whole", 1)
    assert costs["cls-2"] == costs["patches-1"] == ("layers", "whole", 1)
    assert costs["kl"] == ("gradients", "whole", 1)
    assert costs["dino.views"] == ("views", "dino", 5)
    assert costs["dino"] == costs["spread"] == ("gradients", "dino", 5)
    assert costs["simclr"] == ("gradients", "simclr", 9)


@dataclass(frozen=True)
class Plain(Objective):
    name: str = "plain"
    latent: int = 8

    def loss(self, latents):
        return latents.pow(3).sum(dim=(1, 2))


def test_an_objective_without_augmentation_shares_the_plain_view(pictures):
    (only,) = view_sets([KL_, Plain()])
    assert (only.name, only.views, [objective.name for objective in only.objectives]) == ("whole", 1, ["kl", "plain"])
    fungi = Fungi(Recipe(objectives=[Plain()]), backbone=small_backbone())
    assert fungi.blocks(pictures)["plain"].shape == (6, 16)
    assert fungi.block_info()["plain"]["passes"] == 1


# What may be replaced


def test_replaced_heads_negatives_and_projection_are_used(pictures):
    fungi = make(torch.float64)
    before = fungi.fit_blocks(pictures, ids=IDS)
    draw = torch.Generator().manual_seed(5)
    for name in ("kl", "dino", "dino_teacher", "simclr"):
        head = nn.Linear(16, {"kl": 24, "simclr": 12}.get(name, 20), dtype=torch.float64)
        nn.init.normal_(head.weight, generator=draw)
        fungi.heads[name] = head
    fungi.negatives["simclr"] = torch.randn(7, 12, generator=draw)
    fungi.projection = Dense(torch.randn(24, 16 * 17, generator=draw))
    after = fungi.blocks(pictures, ids=IDS)
    for objective in (KL_, DINO_, SIMCLR_):
        assert relative_error(after[objective.name], before[objective.name]) > 0.1
        assert np.abs(after[objective.name] - oracle_block(fungi, objective, pictures)).max() < 1e-6


def test_each_teacher_and_bank_has_a_say(pictures):
    fungi = make()
    before = fungi.fit_blocks(pictures, ids=IDS)
    fungi.heads["dino_teacher"] = make_head(9, "x", 16, 20)
    fungi.negatives["simclr"] = fungi.negatives["simclr"][:1]
    after = fungi.blocks(pictures, ids=IDS)
    same({"kl": after["kl"]}, {"kl": before["kl"]})
    assert relative_error(after["dino"], before["dino"]) > 0.01
    assert relative_error(after["simclr"], before["simclr"]) > 0.01


# The user's network


class Trap(nn.Module):
    """A network that raises behind its target where `armed`."""

    def __init__(self):
        super().__init__()
        self.inner = small_module()
        self.norm = nn.BatchNorm1d(16)
        self.armed = False

    def forward(self, images):
        tokens = self.inner(images)
        if self.armed:
            raise ZeroDivisionError("trap")
        return self.norm(tokens.transpose(1, 2)).transpose(1, 2)


def snapshot(module):
    return (
        {name: tensor.clone() for name, tensor in module.state_dict().items()},
        [(name, p.requires_grad, p.grad) for name, p in module.named_parameters()],
        [
            (name, part.training, *(len(getattr(part, hooks)) for hooks in HOOKS), sorted(vars(part)))
            for name, part in module.named_modules()
        ],
    )


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs")


def assert_unchanged(module, before):
    state, parameters, parts = snapshot(module)
    assert parameters == before[1]
    assert parts == before[2]
    for name, tensor in before[0].items():
        assert torch.equal(state[name], tensor), name


def test_the_network_stays_bit_for_bit_as_it_was_also_after_an_exception(pictures):
    module = Trap().train()
    module.inner.blocks[0].eval()
    module.inner.cls_token.requires_grad_(False)
    before = snapshot(module)
    backbone = Backbone(module, preprocess=PREPROCESS)
    fungi = Fungi(Recipe(objectives=[KL_, DINO_, SIMCLR_]), backbone=backbone)
    first = fungi.fit_transform(pictures)
    fungi.transform(pictures)
    assert_unchanged(module, before)
    assert torch.is_grad_enabled()
    module.armed = True
    with pytest.raises(ZeroDivisionError):
        fungi.transform(pictures)
    with pytest.raises(ZeroDivisionError):
        fungi.fit(pictures)
    module.armed = False
    assert_unchanged(module, before)
    assert torch.is_grad_enabled()
    np.testing.assert_array_equal(fungi.fit_transform(pictures), first)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_callers_without_autograd_get_the_same_blocks(pictures, fitted, mode):
    fungi, blocks = fitted
    fresh = make()
    with mode():
        same(fungi.blocks(pictures, ids=IDS), blocks)
        same(fresh.fit_blocks(pictures, ids=IDS), blocks)
    same(fresh.blocks(pictures, ids=IDS), blocks)


def test_no_global_random_number_is_drawn(pictures):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    make().fit_blocks(pictures)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


# Other processes

VIEWS = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from small import PREPROCESS, noise_pictures
from sporeprint.features.engine import make_head
from sporeprint.objectives.view_sets import generator
from sporeprint.objectives.views.image import Crops
views = Crops()(noise_pictures(1)[0], PREPROCESS, generator(3, "row-ä", "dino"))
print(hashlib.sha256(views.numpy().tobytes() + make_head(3, "kl", 5, 4).weight.numpy().tobytes()).hexdigest())
"""


def test_views_and_heads_are_the_same_in_another_process(request):
    folder = str(request.path.parents[1])  # where `small` lies
    other = subprocess.run(
        [sys.executable, "-c", VIEWS, folder],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},  # here it is another one
    )
    views = Crops()(noise_pictures(1)[0], PREPROCESS, generator(3, "row-ä", "dino"))
    head = make_head(3, "kl", 5, 4).weight
    expected = hashlib.sha256(views.numpy().tobytes() + head.numpy().tobytes()).hexdigest()
    assert other.stdout == expected + "\n"


def test_few_rows_of_several_objectives_are_projected_in_one_call(pictures, monkeypatch):
    fungi = make(objectives=(KL_, DINO_, replace(KL_, name="kl-15", temperature=15.0)))
    expected = fungi.fit_blocks(pictures)
    rows, project = [], fungi.projection

    class Counted:
        dim = project.dim
        matrix = project.matrix

        def __call__(self, gradients):
            rows.append(len(gradients))
            return project(gradients)

    fungi.projection = Counted()
    same(fungi.blocks(pictures), expected)
    monkeypatch.setattr("sporeprint.features.engine.TOGETHER_BYTES", 1)
    same(fungi.blocks(pictures), expected)
    assert rows == [18, 6, 6, 6]
