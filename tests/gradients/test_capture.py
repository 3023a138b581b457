"""The tap and the gradients that come from its factors, against numbers worked by hand and against autograd."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.backbones.structure import linear_layers, resolve
from sporeprint.errors import LayerError
from sporeprint.features.contracts import check_backbone
from sporeprint.gradients.capture import (
    Capture,
    Target,
    check_captured,
    is_linear,
    samples_first,
    tap,
    weight_gradients,
)

WIDTH, SIDE = 8, 12


class Attention(nn.Module):
    """One head, with queries, keys and values side by side."""

    def __init__(self, bias: bool = True):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed = nn.functional.scaled_dot_product_attention(self.query(tokens), self.key(tokens), self.value(tokens))
        return self.out(mixed)


class Block(nn.Module):
    def __init__(self, bias: bool = True, in_place: bool = False):
        super().__init__()
        self.attention = Attention(bias)
        self.mlp = nn.Linear(WIDTH, WIDTH, bias=bias)
        self.in_place = in_place

    def forward(self, tokens: Tensor) -> Tensor:
        if self.in_place:
            tokens += self.attention(tokens).relu_()
            tokens += self.mlp(tokens).mul_(0.5)
            return tokens
        tokens = tokens + self.attention(tokens).relu()
        return tokens + self.mlp(tokens) * 0.5


class Net(nn.Module):
    """Nine patches of 4 x 4, three blocks, the mean of the tokens."""

    def __init__(self, bias: bool = True, in_place: bool = False):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.blocks = nn.ModuleList(Block(bias, in_place) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2).contiguous()
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.mean(dim=1)


def seeded(build: Callable[[], nn.Module]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().double().eval()


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss(embedding: Tensor) -> Tensor:
    return embedding.pow(3).sum()


def tapped(module: nn.Module, paths: list[str], inputs: Tensor, call: Callable[[Tensor], Tensor] | None = None) -> Any:
    """{path: [N, O, I + 1]} from the factors of one pass."""
    targets = resolve(module, paths)
    with tap(targets) as captures:
        value = loss((call or module)(inputs))
        gradients = torch.autograd.grad(value, [capture.outputs for capture in captures.values()])
    check_captured(captures)
    return {
        path: weight_gradients(
            samples_first(capture.inputs, len(inputs)), samples_first(sensitivities, len(inputs)), capture.bias
        )
        for (path, capture), sensitivities in zip(captures.items(), gradients, strict=True)
    }


def looped(module: nn.Module, path: str, inputs: Tensor, call: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The same from autograd, one sample after the other."""
    layer: Any = module.get_submodule(path)
    layer = layer.out_proj if isinstance(layer, nn.MultiheadAttention) else layer
    parameters = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    flags = [parameter.requires_grad for parameter in parameters]
    rows = []
    for sample in inputs:
        for parameter in parameters:
            parameter.requires_grad_()
        weight, *bias = torch.autograd.grad(loss((call or module)(sample.unsqueeze(0))), parameters)
        weight = weight if isinstance(layer, nn.Linear) else weight.T
        rows.append(torch.cat([weight, *(b.unsqueeze(1) for b in bias)], dim=1))
    for parameter, flag in zip(parameters, flags, strict=True):
        parameter.requires_grad_(flag)
    return torch.stack(rows)


def relative(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return ((actual - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max().item()


# weight_gradients


def test_gradient_of_two_tokens_worked_by_hand():
    # One sample; token 1 saw (1, 2) and feels (5, 7), token 2 saw (3, 4) and feels (-1, 2).
    inputs = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    sensitivities = torch.tensor([[[5.0, 7.0], [-1.0, 2.0]]])
    # weight[o, i] = sum over tokens: 5*1 - 1*3 = 2, 5*2 - 1*4 = 6; 7*1 + 2*3 = 13, 7*2 + 2*4 = 22; bias 4, 9.
    assert weight_gradients(inputs, sensitivities).tolist() == [[[2.0, 6.0, 4.0], [13.0, 22.0, 9.0]]]
    assert weight_gradients(inputs, sensitivities, bias=False).tolist() == [[[2.0, 6.0], [13.0, 22.0]]]


def test_loss_of_a_linear_layer_worked_by_hand():
    # y = (1*2 + 2*3, 3*2 + 4*3) + (1, -1) = (9, 17); loss y1^2 + y2: sensitivities (18, 1).
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.bias.copy_(torch.tensor([1.0, -1.0]))
    with tap({"layer": Target("layer", layer)}) as captures:
        output = layer(torch.tensor([[2.0, 3.0]]))
        assert output.tolist() == [[9.0, 17.0]]
        value = output[:, 0].pow(2).sum() + output[:, 1].sum()
        (sensitivities,) = torch.autograd.grad(value, [captures["layer"].outputs])
    assert sensitivities.tolist() == [[18.0, 1.0]]
    gradient = weight_gradients(samples_first(captures["layer"].inputs, 1), samples_first(sensitivities, 1))
    assert gradient.tolist() == [[[36.0, 54.0, 18.0], [2.0, 3.0, 1.0]]]


class Conv1D(nn.Module):
    """As in GPT-2: a linear layer whose weight is [I, O]."""

    def __init__(self, weight: list[list[float]], bias: list[float]):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.tensor(values)) for values in (weight, bias))
        self.nf = self.weight.shape[-1]

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight + self.bias


def test_loss_of_a_conv1d_worked_by_hand():
    # y = (2*1 + 3*2, 2*3 + 3*4, 2*5 + 3*6) + (1, -1, 0) = (9, 17, 28); loss y1^2 + y2: sensitivities (18, 1, 0).
    layer = Conv1D([[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]], [1.0, -1.0, 0.0])
    (target,) = resolve(nn.ModuleDict({"layer": layer}), ["layer"]).values()
    assert target.shape == (3, 3)
    with tap({"layer": target}) as captures:
        output = layer(torch.tensor([[2.0, 3.0]]))
        assert output.tolist() == [[9.0, 17.0, 28.0]]
        value = output[:, 0].pow(2).sum() + output[:, 1].sum()
        (sensitivities,) = torch.autograd.grad(value, [captures["layer"].outputs])
    gradient = weight_gradients(samples_first(captures["layer"].inputs, 1), samples_first(sensitivities, 1))
    assert gradient.tolist() == [[[36.0, 54.0, 18.0], [2.0, 3.0, 1.0], [0.0, 0.0, 0.0]]]


def test_conv1d_is_told_from_a_convolution():
    assert is_linear(Conv1D([[1.0, 2.0]], [0.0, 0.0]))
    assert not is_linear(Conv1D([[[1.0, 2.0]]], [0.0, 0.0]))
    assert not is_linear(nn.Conv1d(1, 1, 1))
    assert not is_linear(nn.Identity())


def test_tokens_that_the_loss_does_not_reach_add_nothing():
    inputs, sensitivities = torch.ones(1, 3, 2), torch.zeros(1, 3, 2)
    sensitivities[0, 1] = torch.tensor([2.0, 0.0])
    assert weight_gradients(inputs, sensitivities).tolist() == [[[2.0, 2.0, 2.0], [0.0, 0.0, 0.0]]]
    assert weight_gradients(inputs, torch.zeros(1, 3, 2)).tolist() == [[[0.0] * 3] * 2]


@pytest.mark.parametrize("padding", [0.0, 7.0, float("inf"), float("nan")])
@pytest.mark.parametrize("bias", [True, False])
def test_padded_batch_has_the_gradients_of_its_samples_one_by_one(padding, bias):
    lengths, draw = [2, 5, 1, 4], torch.Generator().manual_seed(3)
    inputs = torch.full((4, 6, 3), padding, dtype=torch.float64)  # longer than the longest: one column is padding only
    sensitivities = torch.zeros(4, 6, 2, dtype=torch.float64)
    alone = []
    for row, length in enumerate(lengths):
        inputs[row, :length] = torch.randn(length, 3, generator=draw, dtype=torch.float64)
        sensitivities[row, :length] = torch.randn(length, 2, generator=draw, dtype=torch.float64)
        gradient = weight_gradients(inputs[row : row + 1, :length], sensitivities[row : row + 1, :length], bias)
        by_hand = sum(torch.outer(s, i) for s, i in zip(sensitivities[row, :length], inputs[row, :length], strict=True))
        assert relative(gradient[..., :3], by_hand.unsqueeze(0)) < 1e-12
        alone.append(gradient)
    assert relative(weight_gradients(inputs, sensitivities, bias), torch.cat(alone)) < 1e-12


def test_views_of_a_sample_are_summed_and_samples_kept_apart():
    rows = torch.arange(12.0).view(4, 1, 3)  # two samples of two views of one token
    assert samples_first(rows, 2).tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]
    with pytest.raises(LayerError, match="4 rows for 3 samples"):
        samples_first(rows, 3)


# tap


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "paths",
    [
        ["blocks.2.attention.out"],
        ["blocks.2.mlp"],
        ["blocks.0.attention.query"],
        ["blocks.1.attention.out", "blocks.2.attention.out"],
        ["blocks.2.mlp", "blocks.0.mlp", "blocks.1.attention.value"],
        ["blocks.2.attention.query", "blocks.2.attention.key", "blocks.2.attention.value"],
        [f"blocks.{n}.{name}" for n in range(3) for name in ("attention.key", "attention.out", "mlp")],
    ],
    ids=["last", "very-last", "first", "middle-and-last", "any-order", "parallel", "many"],
)
def test_every_target_of_one_pass_has_autograds_gradient(paths, bias, trainable):
    module = seeded(lambda: Net(bias)).requires_grad_(trainable)
    gradients = tapped(module, paths, images())
    assert list(gradients) == paths
    for path in paths:
        assert gradients[path].shape == (3, WIDTH, WIDTH + bias)
        assert relative(gradients[path], looped(module, path, images())) < 1e-12


@pytest.mark.parametrize("path", ["blocks.1.attention.out", "blocks.2.attention.out", "blocks.2.mlp"])
def test_network_that_changes_its_activations_in_place_has_autograds_gradient(path):
    module = seeded(lambda: Net(in_place=True)).requires_grad_(False)
    written = seeded(Net)  # the same numbers without in-place operations: those that autograd can follow
    assert relative(tapped(module, [path], images())[path], looped(written, path, images())) < 1e-12


def test_layer_blocks_are_read_before_a_later_block_changes_them_in_place():
    plain, in_place = (
        Backbone(seeded(lambda flag=flag: Net(in_place=flag)), "blocks.2.mlp", Preprocess(size=SIDE)) for flag in (0, 1)
    )
    with plain.run(images(), layers=3) as expected, in_place.run(images(), layers=3) as actual:
        assert list(actual.layers) == ["patches-1", "patches-2", "patches-3"]
        for name, values in expected.layers.items():
            assert relative(actual.layers[name], values) < 1e-12


def test_autograd_stops_at_the_earliest_target():
    module = seeded(Net)
    with tap(resolve(module, ["blocks.1.mlp", "blocks.2.mlp"])) as captures:
        module(images())
    assert captures["blocks.1.mlp"].outputs.is_leaf
    assert not captures["blocks.2.mlp"].outputs.is_leaf
    assert not captures["blocks.1.mlp"].inputs.requires_grad


def test_no_gradient_is_left_on_the_weights():
    module = seeded(Net)
    tapped(module, ["blocks.1.mlp"], images())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def broken(module: nn.Module) -> None:
    module(images())
    assert hooks(module) > 0
    assert torch.is_grad_enabled()
    raise ZeroDivisionError


@pytest.mark.parametrize("autograd_on", [True, False])
def test_exception_inside_the_pass_leaves_no_hook_and_the_callers_modes(autograd_on):
    module = seeded(Net)
    fast = torch.backends.mha.get_fastpath_enabled()
    with torch.set_grad_enabled(autograd_on):
        with pytest.raises(ZeroDivisionError), tap(resolve(module, ["blocks.1.mlp"])):
            broken(module)
        assert torch.is_grad_enabled() == autograd_on
    assert hooks(module) == 0
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_exception_inside_the_network_leaves_no_hook_and_the_callers_mode():
    module = seeded(Net)
    with torch.no_grad():
        with pytest.raises(RuntimeError), tap(resolve(module, ["blocks.1.mlp"])):
            module(torch.zeros(1, 2, SIDE, SIDE))
        assert not torch.is_grad_enabled()
    assert hooks(module) == 0


def test_layer_used_twice_in_one_pass_is_refused():
    class Twice(Net):
        def forward(self, images: Tensor) -> Tensor:
            return self.blocks[2].mlp(super().forward(images))

    with pytest.raises(LayerError, match=r"'blocks.2.mlp' ran 2 times in one pass \(shared weights\)"):
        tapped(seeded(Twice), ["blocks.2.mlp"], images())


def test_layer_that_is_never_reached_is_refused():
    class Spare(Net):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(WIDTH, 2)

    with pytest.raises(LayerError, match="layer 'head' was not reached in the forward pass"):
        Backbone(seeded(Spare), "head", Preprocess(size=SIDE))


def test_capture_counts_its_calls():
    with pytest.raises(LayerError, match="not reached"):
        check_captured({"layer": Capture()})
    check_captured({"layer": Capture(calls=1)})


class Gated(Net):
    """Uses its images again behind the target, so that autograd saves them."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * images.flatten(1)[:, :WIDTH]


def test_views_made_inside_inference_mode_may_be_used_behind_the_target():
    module = seeded(Gated)
    expected = looped(module, "blocks.2.mlp", images())
    with torch.inference_mode(), Backbone(module, "blocks.2.mlp", Preprocess(size=SIDE)).run(images()) as one_pass:
        (capture,) = one_pass.captures.values()
        (sensitivities,) = torch.autograd.grad(loss(one_pass.embedding), [capture.outputs])
        assert relative(weight_gradients(capture.inputs, sensitivities), expected) < 1e-12


# Fused attention


class Encoder(nn.Module):
    """torch's own encoder layers over nine patches; the mean of the tokens that are not masked."""

    def __init__(
        self, batch_first: bool, norm_first: bool, masked: bool = False, container: bool = False, **options: Any
    ):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        layers = [
            nn.TransformerEncoderLayer(
                WIDTH, 2, 16, dropout=0.3, batch_first=batch_first, norm_first=norm_first, **options
            )
            for _ in range(2)
        ]
        self.layers = nn.ModuleList(layers)
        if container:
            del self.layers
            self.encoder = nn.TransformerEncoder(layers[0], 2)
        self.batch_first, self.masked = batch_first, masked

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)  # [N, 9, E]
        mask = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        mask[:, 6:] = self.masked
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        padding = {"src_key_padding_mask": mask} if self.masked else {}
        if hasattr(self, "encoder"):
            tokens = self.encoder(tokens, **padding)
        else:
            for layer in self.layers:
                tokens = layer(tokens, **padding)
        tokens = tokens if self.batch_first else tokens.transpose(0, 1)
        return tokens[:, : 6 if self.masked else 9].mean(dim=1)


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("trainable", [False, True])
def test_fused_attention_has_autograds_gradient(batch_first, norm_first, masked, number, trainable):
    module = seeded(lambda: Encoder(batch_first, norm_first, masked)).requires_grad_(trainable)
    path = f"layers.{number}.self_attn.out_proj"
    gradients = tapped(module, [path], images())[path]
    assert relative(gradients, looped(module, path, images())) < 1e-12


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("path", ["encoder.layers.1.self_attn", "encoder.layers.1.linear2", "encoder.layers.0.linear1"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_torchs_encoder_is_read_without_its_nested_fast_path(path, masked):
    module = seeded(lambda: Encoder(True, False, masked, container=True))
    expected = looped(module, path, images())
    gradients = tapped(module.requires_grad_(False), [path], images())[path]
    assert relative(gradients, expected) < 1e-12


def test_fused_attention_without_bias_has_no_bias_column():
    module = seeded(lambda: Encoder(True, True, bias=False))
    path = "layers.1.self_attn.out_proj"
    gradients = tapped(module, [path], images())[path]
    assert gradients.shape == (3, WIDTH, WIDTH)
    assert relative(gradients, looped(module, path, images())) < 1e-12


class Crossed(nn.Module):
    """Attention called with positional masks, other widths for keys and values, and added keys."""

    def __init__(self, **options: Any):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.other = nn.Conv2d(3, 6, 4, stride=4)
        self.attn = nn.MultiheadAttention(WIDTH, 2, kdim=6, vdim=6, batch_first=True, dropout=0.2, **options)

    def forward(self, images: Tensor) -> Tensor:
        tokens, other = (layer(images).flatten(2).transpose(1, 2) for layer in (self.patches, self.other))
        padding = torch.zeros(other.shape[:2], dtype=torch.bool)
        padding[:, 7:] = True
        causal = torch.ones(9, 9, dtype=torch.bool).triu(1)
        mixed, weights = self.attn(tokens, other, other, padding, True, causal)
        assert weights.shape == (len(images), 9, 9 + 2 * (self.attn.bias_k is not None))
        return (tokens + mixed).mean(dim=1)


@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True, "add_zero_attn": True}], ids=["plain", "added-keys"])
def test_cross_attention_with_positional_masks_has_autograds_gradient(options):
    module = seeded(lambda: Crossed(**options))
    gradients = tapped(module, ["attn"], images())["attn"]
    assert relative(gradients, looped(module, "attn", images())) < 1e-12


class Handed(nn.Module):
    """Attention called by hand over nine patches, as `call(attention, tokens)` does it."""

    def __init__(self, call: Callable[[nn.MultiheadAttention, Tensor], Any], **options: Any):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.attn = nn.MultiheadAttention(WIDTH, 2, **options)
        self.call, self.seen = call, None

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)  # [N, 9, E]
        mixed, self.seen = self.call(self.attn, tokens)
        return (tokens + mixed).tanh().mean(dim=1)


def unbatched(attention: nn.MultiheadAttention, tokens: Tensor) -> Any:
    mixed, weights = attention(tokens[0], tokens[0], tokens[0])
    assert mixed.shape == (9, WIDTH)
    return mixed.unsqueeze(0), weights


CALLS: dict[str, tuple[Callable[[nn.MultiheadAttention, Tensor], Any], dict[str, Any]]] = {
    "positions": (lambda attention, x: attention(x, x, x, None, True, None, False), {"batch_first": True}),
    "keywords": (lambda attention, x: attention(query=x, key=x, value=x, need_weights=True), {"batch_first": True}),
    "no weights": (lambda attention, x: attention(x, x, x, need_weights=False), {"batch_first": True, "bias": False}),
    "time first": (
        lambda attention, x: (attention(*[x.transpose(0, 1)] * 3)[0].transpose(0, 1), None),
        {"add_zero_attn": True},
    ),
    "causal": (
        lambda attention, x: attention(
            x,
            x,
            x,
            need_weights=False,
            is_causal=True,
            attn_mask=nn.Transformer.generate_square_subsequent_mask(9).to(x),
        ),
        {"batch_first": True},
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_attention_called_in_any_way_keeps_its_results_and_has_autograds_gradient(call):
    module = seeded(lambda: Handed(CALLS[call][0], **CALLS[call][1]))
    with torch.no_grad():
        plain, plain_weights = module(images()), module.seen
    with tap(resolve(module, ["attn"])):
        assert relative(module(images()), plain) < 1e-14
    assert (module.seen is None) == (plain_weights is None)
    if plain_weights is not None:
        assert torch.equal(module.seen, plain_weights)
    assert relative(tapped(module, ["attn"], images())["attn"], looped(module, "attn", images())) < 1e-12


def test_attention_over_one_sample_without_a_batch_has_autograds_gradient():
    module = seeded(lambda: Handed(unbatched))
    assert relative(tapped(module, ["attn"], images(1))["attn"], looped(module, "attn", images(1))) < 1e-12


def test_attention_in_bfloat16_gives_what_it_gives_untouched():
    module = seeded(lambda: Handed(CALLS["keywords"][0], batch_first=True)).float()
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            plain = module(images().float())
        with tap(resolve(module, ["attn"])) as captures:
            assert torch.equal(module(images().float()), plain)
    (capture,) = captures.values()
    assert (capture.inputs.dtype, capture.calls) == (torch.bfloat16, 1)


@pytest.fixture(autouse=True)
def at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "MODES", torch._C._len_torch_function_stack())  # of tests before


MODES = 0


def modes() -> int:
    return torch._C._len_torch_function_stack() - MODES


def test_only_the_attention_that_is_read_runs_in_our_mode_and_only_in_its_thread():
    counts: dict[str, int] = {}

    def call(attention: nn.MultiheadAttention, tokens: Tensor) -> Any:
        counts["before"] = modes()
        output = attention(tokens, tokens, tokens)
        counts["after"] = modes()
        return output

    def watch(*_: Any) -> None:
        with ThreadPoolExecutor(1) as pool:
            counts.update(inside=modes(), elsewhere=pool.submit(modes).result())

    module = seeded(lambda: Handed(call, batch_first=True))
    with tap(resolve(module, ["attn"])):
        module.attn.register_forward_pre_hook(watch)  # behind our own
        module(images())
    assert counts == {"before": 0, "inside": 1, "elsewhere": 0, "after": 0}


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_attention_that_is_interrupted_leaves_no_mode(error):
    def interrupt(*_: Any) -> None:
        assert modes() == 1
        raise error

    module = seeded(lambda: Handed(CALLS["keywords"][0], batch_first=True))
    with tap(resolve(module, ["attn"])):
        module.attn.register_forward_pre_hook(interrupt)  # behind our own
        with pytest.raises(error):
            module(images())
    assert modes() == 0


class Pair(nn.Module):
    """Holds two projections and hands over both weights, one to each of two attentions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.inner = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            fixed = (WIDTH, 2, self.inner.weight, self.inner.bias, None, None, False, 0.0, layer.weight, layer.bias)
            tokens = tokens + nn.functional.multi_head_attention_forward(tokens, tokens, tokens, *fixed)[0]
        return tokens


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.pair = nn.Conv2d(3, WIDTH, 4, stride=4), Pair()

    def forward(self, images: Tensor) -> Tensor:
        return self.pair(self.patches(images).flatten(2).permute(2, 0, 1)).mean(dim=0)


@pytest.mark.parametrize("paths", [["pair.first"], ["pair.second"], ["pair.second", "pair.first"]])
def test_each_of_two_handed_weights_is_kept_from_the_other(paths):
    module = seeded(Pairs)
    gradients = tapped(module, paths, images())
    for path in paths:
        assert relative(gradients[path], looped(module, path, images())) < 1e-12


WAVES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32} | {
    "conv_dim": (16, 16), "conv_stride": (4, 4), "conv_kernel": (8, 4), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "num_buckets": 20, "max_bucket_distance": 16,
}  # fmt: skip


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
def test_wavlm_which_hands_its_weight_to_a_function_has_autograds_gradient(number, masked):
    transformers = pytest.importorskip("transformers")
    module = seeded(lambda: transformers.WavLMModel(transformers.WavLMConfig(**WAVES)))
    waves = torch.randn(3, 400, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def call(waves: Tensor) -> Tensor:
        mask = torch.ones(waves.shape, dtype=torch.long)
        mask[:, 250:] = not masked
        return module(waves, attention_mask=mask).last_hidden_state[:, :14].mean(dim=1)

    path = f"encoder.layers.{number}.attention.out_proj"
    with torch.no_grad():
        plain = call(waves)
    with tap(resolve(module, [path])) as captures:
        assert relative(call(waves), plain) < 1e-12
    assert captures[path].inputs.shape == (3, 24, 16)  # 400 samples: (400 - 8) / 4 + 1 = 99, (99 - 4) / 4 + 1 = 24
    assert relative(tapped(module, [path], waves, call)[path], looped(module, path, waves, call)) < 1e-9


@pytest.mark.parametrize("path", ["h.1.attn.c_proj", "h.0.attn.c_attn", "h.1.mlp.c_fc"])
def test_conv1d_of_gpt2_has_autograds_gradient(path):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 8, "n_positions": 9, "n_embd": 16, "n_layer": 2, "n_head": 2, "eos_token_id": 0}
    module = seeded(lambda: transformers.GPT2Model(transformers.GPT2Config(**sizes, bos_token_id=0)))
    embedded = torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def call(embedded: Tensor) -> Tensor:
        return module(inputs_embeds=embedded).last_hidden_state[:, -1]

    assert path in linear_layers(module)
    assert relative(tapped(module, [path], embedded, call)[path], looped(module, path, embedded, call)) < 1e-9


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time-first", "batch-first"])
def test_stack_of_torchs_encoder_layers_is_a_backbone(batch_first, masked):
    module = seeded(lambda: Encoder(batch_first, True, masked)).float()
    backbone = Backbone(module.train(), preprocess=Preprocess(size=SIDE))
    assert list(backbone.targets) == ["layers.1.self_attn.out_proj"]
    check_backbone(backbone)
    assert all(part.training for part in module.modules())


def test_plain_layer_that_sees_time_first_is_refused():
    with pytest.raises(LayerError, match=r"'layers.1.linear2' saw \(9, 1, 16\) for one image: time first"):
        Backbone(seeded(lambda: Encoder(False, True)), "layers.1.linear2", Preprocess(size=SIDE))


def test_every_linear_layer_of_a_network_is_listed():
    assert linear_layers(Block()) == ["attention.query", "attention.key", "attention.value", "attention.out", "mlp"]
