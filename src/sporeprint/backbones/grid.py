"""Run one pass over images of any height and width: the grid of their patches' tokens, and what the targets saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.backbones.layers import precise
from sporeprint.backbones.libraries.adapter import Adapter
from sporeprint.backbones.libraries.image_sizes import patch_convolution
from sporeprint.errors import BackboneError, SporeprintError, first_line, is_out_of_memory
from sporeprint.gradients.capture import Capture


@dataclass
class GridPass:
    """What one pass over [N, 3, H, W] images gives; the grids hold the patches' tokens only.

    tokens: [N, H_p, W_p, E], float32 or float64, the last hidden state as the network's library gives it, with autograd
    behind it. captures: for each target, inputs [N, T, I] and outputs [N, T, O] of all tokens; `patch_factors` drops
    those before the patches. layers: "patches-12" and so on, [N, H_p, W_p, E], detached, before the final norm.
    """

    tokens: Tensor
    captures: dict[str, Capture]
    layers: dict[str, Tensor] = field(default_factory=dict)


def patch_factors(factors: Tensor, prefix: int) -> Tensor:
    """Return [N, T - prefix, F], the patches' part of inputs, outputs or sensitivities [N, T, F] of all tokens."""
    return factors[:, prefix:]


@dataclass(frozen=True)
class GridNetwork:
    """What a grid of tokens depends on. patch: side in pixels, None where only the network's own size is known.

    tokens: their number in a pass at its own size. prefix: those before the patches. depth: the number of its blocks;
    first_block: None where no list of them was found.
    """

    name: str
    adapter: Adapter
    preprocess: Inputs
    patch: int | None
    tokens: int | None
    prefix: int
    depth: int
    first_block: nn.Module | None


def grid_shape(network: GridNetwork, height: int, width: int) -> tuple[int, int]:
    """Return (H_p, W_p) of height x width pixels. Raises BackboneError where the backbone cannot take them."""
    if network.preprocess.modality != "image":
        raise BackboneError(
            f"{network.name} takes {network.preprocess.modality}; grids of tokens need a backbone of images"
        )
    size = network.preprocess.limits()["image_size"]
    patch = network.patch
    if patch is None:
        if (height, width) != (size, size):
            raise BackboneError(
                f"images of {height} x {width} pixels (height x width), but {network.name} is only known to take "
                f"images of {size} x {size}, since it cannot interpolate its positions; resize the images "
                "(`backbone.preprocess.at`), use a plain vision transformer (ViT, DeiT, DINOv2, CLIP, SigLIP), or, if "
                "your network takes any size and its preprocess is a Preprocess, declare it: "
                "Preprocess(..., patch=16), the side of its patches in pixels"
            )
        return _own_grid(network, size)
    if height < patch or width < patch or height % patch or width % patch:
        nearest = " x ".join(str(patch * max(1, round(side / patch))) for side in (height, width))
        raise BackboneError(
            f"images of {height} x {width} pixels (height x width); {network.name} takes multiples of its patches' "
            f"side, {patch}. Nearest: {nearest} (`backbone.preprocess.at(image, height, width)` resizes)"
        )
    return height // patch, width // patch


def shape_of(network: GridNetwork, images: Tensor) -> tuple[int, int]:
    """Return `grid_shape` of a batch of images. Raises BackboneError also where it is not [N, 3, H, W]."""
    if images.dim() != 4 or images.shape[1] != 3 or not len(images):
        raise BackboneError(
            f"images of shape {list(images.shape)}; expected [N, 3, H, W], normalised (stack what "
            "`backbone.preprocess.at` returns)"
        )
    return grid_shape(network, images.shape[2], images.shape[3])


def _own_grid(network: GridNetwork, size: int) -> tuple[int, int]:
    """Return the grid at the network's own size: that of its patch convolution, else any square of its tokens."""
    patches = (network.tokens or 0) - network.prefix
    stride = patch_convolution(network.adapter.module)
    side = size // stride if stride else round(max(0, patches) ** 0.5)
    if not side or side * side != patches:
        expected = f"{side} x {side}, by its patch convolution" if stride else "a square number"
        raise BackboneError(
            f"{network.name} gives {network.tokens} tokens for an image of {size} x {size}, {patches} of them after "
            f"a prefix of {network.prefix}; expected {expected}, so they are not a plain grid of patches. Use a plain "
            "vision transformer, or, if they are one, declare it: Backbone(..., prefix=1), Preprocess(..., patch=16)"
        )
    return side, side


def grid_pass(
    network: GridNetwork,
    images: Tensor,
    shape: tuple[int, int],
    blocks: Sequence[tuple[str, nn.Module]],
    tapped: AbstractContextManager[dict[str, Capture]],
) -> GridPass:
    """Run the pass. blocks: the last ones, (path, block), whose tokens are kept. Raises BackboneError."""
    grids = Grids(network, len(images), shape)
    with tapped as captures, grids.keep(blocks):
        grid = grids.grid(_tokens(network, images), "the network gives")
    grids.check(captures)
    return GridPass(grid, captures, grids.layers)


def check_places(network: GridNetwork) -> None:
    """Raise BackboneError unless other pixels in a patch change the token of its row and column before the first block.

    Else the tokens are in another order, or those of no patch come last, as in YOLOS. Where the first block takes no
    tokens [N, T, E], nothing is checked.
    """
    size, patch = network.preprocess.limits()["image_size"], network.patch
    size = size if patch is None else size // patch * patch
    rows, columns = grid_shape(network, size, size)
    first = network.first_block
    if first is None:
        return
    row, column = min(1, rows - 1), 0  # another token if read by columns or to and fro, even in a grid of 2 x 2
    view, other, _ = network.preprocess.probes()
    images = torch.stack([view, view])[..., :size, :size]
    side = size // rows
    down, across = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
    images[1, :, down, across] = other[:, down, across]
    first_inputs: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        tokens = args[0] if args else named.get("hidden_states")
        if isinstance(tokens, Tensor):
            first_inputs.append(tokens.detach().clone())

    handle = first.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            parameter = next(network.adapter.module.parameters())
            _tokens(network, images.to(parameter.device, parameter.dtype))
    finally:
        handle.remove()
    if len(first_inputs) != 1 or first_inputs[0].shape[:-1] != (2, network.prefix + rows * columns):
        return
    changed = int((first_inputs[0][1] - first_inputs[0][0]).norm(dim=1).argmax())
    expected = network.prefix + row * columns + column
    if changed != expected:
        raise BackboneError(
            f"{network.name}: other pixels in the patch of row {row}, column {column} (from 0) change token {changed}; "
            f"expected {expected}, for {rows} x {columns} patches row by row after a prefix of {network.prefix}. "
            "Its tokens are in another order, or those of no patch come last; use another network, or give "
            "Backbone(..., prefix=...)"
        )


def _tokens(network: GridNetwork, images: Tensor) -> Tensor | None:
    try:
        return network.adapter.outputs(images, network.name)[0]
    except (RuntimeError, ValueError, TypeError, AssertionError, LookupError) as error:
        if isinstance(error, SporeprintError) or is_out_of_memory(error):
            raise
        raise BackboneError(
            f"{network.name} fails on images {list(images.shape)}: {first_line(error)}. Does it take other sizes "
            f"than its own, {network.preprocess.limits()['image_size']}? Preprocess(patch=...) declares that it does"
        ) from error


@dataclass
class Grids:
    """Grids [N, H_p, W_p, E] made of tokens [N, T, E]."""

    network: GridNetwork
    samples: int
    shape: tuple[int, int]
    layers: dict[str, Tensor] = field(default_factory=dict)

    def grid(self, tokens: Tensor | None, what: str) -> Tensor:
        """Return the grid of the patches. Raises BackboneError where their number is not the image's."""
        return precise(self._checked(tokens, what))[:, self.network.prefix :].unflatten(1, self.shape)

    def check(self, captures: dict[str, Capture]) -> None:
        """Raise BackboneError unless every target saw the tokens themselves."""
        for path, capture in captures.items():
            self._checked(capture.inputs, f"target {path!r} sees")

    @contextmanager
    def keep(self, blocks: Sequence[tuple[str, nn.Module]]) -> Iterator[None]:
        """Keep what `blocks`, the last ones, return in the passes while the context is open."""
        numbered = enumerate(blocks, start=self.network.depth - len(blocks) + 1)
        handles = [block.register_forward_hook(self._hook(path, number)) for number, (path, block) in numbered]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, path: str, number: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            tokens = output if isinstance(output, Tensor) else output[0]
            # A copy: the next block may add in place.
            self.layers[f"patches-{number}"] = self.grid(tokens.detach(), f"block {path!r} gives").clone()

        return hook

    def _checked(self, tokens: Tensor | None, what: str) -> Tensor:
        (rows, columns), prefix, name = self.shape, self.network.prefix, self.network.name
        expected = (self.samples, prefix + rows * columns)
        if tokens is None or tokens.dim() != 3 or tokens.shape[:2] != expected:
            shown = "no tokens" if tokens is None else f"shape {list(tokens.shape)}"
            raise BackboneError(
                f"{name}: {what} {shown}; expected [{expected[0]}, {expected[1]}, E], {prefix} tokens before "
                f"a grid of {rows} x {columns} patches. Use a plain vision transformer, whose tokens are such a grid, "
                "and a target that sees every token; or give Backbone(..., prefix=...) and Preprocess(..., patch=...)"
            )
        return tokens
