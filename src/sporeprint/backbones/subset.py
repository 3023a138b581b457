"""Views as subsets of an image's own tokens: taken before the first block, where the positions are in them already."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sporeprint.backbones import structure
from sporeprint.errors import BackboneError, first_line, is_out_of_memory

if TYPE_CHECKING:
    from sporeprint.backbones.base import Backbone

_CHECKED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}  # relative; of other weights _ROUGH
_ROUGH = 3e-2
_ADVICE = "so views cannot be subsets of its tokens; use Patches(side=0.5) or Crops(local_side=0.5) in their place"


@contextmanager
def keeping(module: nn.Module, kept: Tensor, patches: int) -> Iterator[None]:
    """Passes of this thread, inside the block, are over subsets: what stands before the patches, and some patches.

    kept: [N, V, K], which of an image's `patches`, row by row. Between the patch embedding and the first block of
    `module`, tokens [N, T, E] become [N * V, T - patches + K, E]. Passes that other threads run are left alone.
    Raises BackboneError where there is no list of blocks, or the first one does not run once.
    """
    blocks = structure.blocks(module)
    name = type(module).__name__
    if not blocks:
        raise BackboneError(f"{name} has no list of transformer blocks, so views cannot be subsets of its tokens")
    mine, calls = threading.get_ident(), []

    def take(
        _: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if threading.get_ident() != mine:
            return None
        tokens = args[0] if args else named.get("hidden_states")
        if not isinstance(tokens, Tensor) or tokens.dim() != 3 or len(tokens) != len(kept) or tokens.shape[1] < patches:
            seen = list(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
            raise BackboneError(
                f"the first block of {name} takes {seen}; expected tokens [{len(kept)}, T, E], at least {patches} of "
                "them, for views that are subsets of tokens"
            )
        calls.append(tokens.shape)
        some = take_tokens(tokens, kept, patches)
        return ((some, *args[1:]), named) if args else (args, {**named, "hidden_states": some})

    handle = blocks[0][1].register_forward_pre_hook(take, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
    if len(calls) != 1:
        raise BackboneError(f"the first block of {name} ran {len(calls)} times in one pass; expected once")


def take_tokens(tokens: Tensor, kept: Tensor, patches: int) -> Tensor:
    """tokens: [N, T, E], `patches` of them at the end; kept: [N, V, K]. Returns [N * V, T - patches + K, E]."""
    samples, count, _ = tokens.shape
    prefix = torch.arange(count - patches, device=tokens.device).expand(*kept.shape[:2], -1)
    at = torch.cat([prefix, kept.to(tokens.device) + count - patches], dim=2)  # [N, V, T']
    at = at + torch.arange(samples, device=tokens.device).view(-1, 1, 1) * count
    return tokens.flatten(0, 1)[at.flatten(0, 1)]


def check_subsets(backbone: Backbone) -> None:
    """Whether a subset of the tokens means to the network what it should; found out once, in three passes.

    All of the patches must give the plain embedding, in another order too: where positions are computed inside the
    blocks, rotary or relative, they would be those of other patches. Raises BackboneError.
    """
    if backbone.module in _CHECKED:
        return
    images = torch.stack(backbone.preprocess.probes())
    patches = backbone.preprocess.tokens_a_side() ** 2  # type: ignore[attr-defined]
    order = torch.randperm(patches, generator=torch.Generator().manual_seed(0))
    plain, tolerance = _embed(backbone, images), _TOLERANCE.get(backbone.dtype, _ROUGH)
    for what, kept in (("all of its patches taken", torch.arange(patches)), ("its patches in another order", order)):
        made = _embed(backbone, batch_of(images, kept.expand(len(images), 1, -1), patches))
        apart = float((made - plain).norm() / plain.norm())
        if not apart <= tolerance:
            raise BackboneError(
                f"{backbone.name} with {what} gives another embedding (relative difference {apart:.1e}): its positions "
                f"are computed inside the blocks (rotary or relative), {_ADVICE}"
            )
    half = order[: max(1, patches // 2)]
    if not _embed(backbone, batch_of(images, half.expand(len(images), 1, -1), patches)).isfinite().all():
        raise BackboneError(f"{backbone.name} gives no finite embedding of half of its patches, {_ADVICE}")
    _CHECKED[backbone.module] = True


def batch_of(images: Tensor, kept: Tensor, patches: int) -> dict[str, Tensor]:
    """What `ImageInputs.collate` makes of views that are subsets: images [N, 3, S, S], kept [N, V, K]."""
    return {"pixel_values": images, "kept": kept, "patches": torch.full((len(images),), patches)}


def _embed(backbone: Backbone, views: Tensor | Mapping[str, Tensor]) -> Tensor:
    try:
        with backbone.run(views if isinstance(views, Tensor) else dict(views)) as one_pass:
            return one_pass.embedding.detach()
    except (RuntimeError, ValueError, TypeError, AssertionError, LookupError) as error:
        if is_out_of_memory(error):
            raise
        raise BackboneError(f"{backbone.name} fails on some of its tokens: {first_line(error)}; {_ADVICE}") from error
