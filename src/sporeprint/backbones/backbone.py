"""The frozen network with its preprocessing, its pooled embedding, its blocks and its target layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sporeprint.backbones import structure
from sporeprint.backbones.description import Description, check_finite, weights_digest
from sporeprint.backbones.grid import GridNetwork, GridPass, check_places, grid_pass, grid_shape, shape_of
from sporeprint.backbones.input_spec import resolve_inputs, unpack_sentence
from sporeprint.backbones.inputs.inputs import Batch, Inputs, batch_to
from sporeprint.backbones.layers import Layers, precise
from sporeprint.backbones.libraries.adapter import Adapter
from sporeprint.backbones.libraries.library_adapters import adapt, check_plain, unwrap
from sporeprint.backbones.pooling import POOLINGS, pool
from sporeprint.backbones.quick.known_blocks import RunAgain
from sporeprint.backbones.quick.shortcut import Shortcut
from sporeprint.backbones.shapes import Probe
from sporeprint.backbones.twin import Twin
from sporeprint.errors import BackboneError, warn
from sporeprint.gradients.capture import Capture, check_captured, check_reached, tap
from sporeprint.gradients.switches import autocast_from, own_settings
from sporeprint.values import check_choice

Result = TypeVar("Result")


@dataclass
class Pass:
    """What one pass over [N] views gives."""

    embedding: Tensor  # [N, E], float32 or float64, with autograd behind it
    captures: dict[str, Capture]
    logits: Tensor | None = None  # [N, M, C], the checkpoint's own head at what was masked, where asked for
    labels: Tensor | None = None  # [N, M], their targets; -100 where a view has fewer
    layers: dict[str, Tensor] = field(default_factory=dict)  # "cls-12", "patches-12", "tokens-12": [N, E']


class Backbone:
    """A frozen network, any `nn.Module`, ready to be read. Its weights, flags, hooks and `.grad` stay as they are.

    You may run, train or copy it in other threads meanwhile: a pass runs a twin, which shares the weights alone.
    Forward hooks of your own, also those for all modules of the process, run with the twin's modules and may change
    numbers.

    module: takes [N, 3, S, S], or for text and sound named tensors; gives tokens [N, T, E], a pooled embedding [N, E],
    or a Hugging Face output. Wrappers that pass their input on (DataParallel, torch.compile, peft) are taken off; of a
    Hugging Face output from your own module, tokens are read, and pooler_output only where the network inside is read
    by it (CLIP). A SentenceTransformer brings its own preprocess, pooling and finish.
    target: path(s) of the linear layers to read; default: found by structure.
    preprocess: for images a `Preprocess`, or a function from an RGB PIL image to [3, S, S]; for text a Hugging Face
    tokenizer, or `Tokens`; for sound a Hugging Face feature extractor, or `Sound`.
    pooling: "auto", "cls", "mean" (of the patches, or of the tokens that are not padding), "last".
    prefix: number of tokens before the patches (CLS, distillation, registers); default: found.
    finish: from the pooled [N, E] to the embedding, such as dense layers and a normalisation.
    modality: which tower of a network with two; "auto": the one for images or sound.
    Raises LayerError, BackboneError.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from sporeprint import KL, Backbone, Fungi, Preprocess, Recipe
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16))
    >>> backbone = Backbone(network, target="1", preprocess=Preprocess(size=8))
    >>> backbone.modality, backbone.width, backbone.linear_layers()
    ('image', 16, ['1'])
    >>> images = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), dtype=np.uint8)
    >>> Fungi(Recipe(objectives=[KL()]), backbone=backbone).fit_transform(images).shape
    (6, 32)
    """

    def __init__(
        self,
        module: nn.Module,
        target: str | Sequence[str] | None = None,
        preprocess: Inputs | Callable[..., Any] | None = None,
        pooling: str = "auto",
        prefix: int | None = None,
        name: str | None = None,
        finish: nn.Module | None = None,
        modality: str = "auto",
    ):
        if not isinstance(module, nn.Module):
            raise BackboneError(
                f"module is a {type(module).__name__}; expected an nn.Module; a network is loaded by its name with "
                "Recipe(backbone=...)"
            )
        module, inside = unwrap(module)
        module, preprocess, finish, own = unpack_sentence(module, preprocess, finish)
        check_plain(module, name or type(module).__name__)
        self.whole = module  # with a head, which is not read; `own_head` finds it
        self.adapter: Adapter = adapt(module, modality)
        self.module = self.adapter.module
        self.name = name or type(self.module).__name__
        if any(parameter.is_inference() for parameter in self.module.parameters()):
            raise BackboneError(
                f"{self.name} was made inside torch.inference_mode(), so autograd can never pass through its weights; "
                "make or load it outside (torch.no_grad() is fine)"
            )
        if finish is not None:
            check_finite(finish, self.name)
        check_choice("pooling", pooling, POOLINGS, BackboneError)
        target = target or self.adapter.target
        paths = [target] if isinstance(target, str) else target
        self.targets = structure.resolve(self.module, paths and [path.removeprefix(inside) for path in paths])
        self.preprocess = resolve_inputs(preprocess, self.adapter, self.name)
        self.finish = finish
        self.caveats: dict[str, Any] = {}  # of how it was loaded, for `describe`: random_weights, trust_remote_code
        self._warned = False
        self._blocks = structure.blocks(self.module)
        self._places_checked = False
        self.quick = False
        self._shortcut: Shortcut | None = None
        self._probe(own if pooling == "auto" else pooling, self.adapter.prefix if prefix is None else prefix)
        check_finite(self.module, self.name, self.find_read)
        self.quick = True  # plain blocks are computed from their parts; False: by the module's own forward

    def __repr__(self) -> str:
        reads = ", ".join(self.targets)
        return f"Backbone({self.name}, {self.modality}, {self.width} numbers, reads {reads})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_shortcut": None}  # which is found again

    @property
    def modality(self) -> str:
        """What it takes: "image", "text" or "audio"."""
        return self.preprocess.modality

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.module.parameters()).dtype

    @property
    def depth(self) -> int:
        """The number of transformer blocks; 0 where there is no list of them."""
        return len(self._blocks)

    @property
    def first_block(self) -> nn.Module | None:
        """The first transformer block; None where there is no list of them."""
        return self._blocks[0][1] if self._blocks else None

    @property
    def patch(self) -> int | None:
        """The side of a patch in pixels, where images may have any height and width; else None."""
        return getattr(self.preprocess, "patch", None) or self.adapter.patch

    def linear_layers(self) -> list[str]:
        """Return the paths that `target` accepts."""
        return structure.linear_layers(self.module)

    @contextmanager
    def run(
        self,
        views: Batch,
        layers: int = 0,
        autocast: torch.dtype | None = None,
        logits: bool = False,
        kinds: Sequence[str] | None = None,
    ) -> Iterator[Pass]:
        """Run one pass over N views, [N, 3, S, S] or what `preprocess.collate` makes of them.

        Inside the block, autograd reaches from the embedding to each target, and more passes may be run. layers:
        collect `kinds` (`layer_kinds` by default) of this many last blocks. autocast: a lower precision for the pass.
        logits: run the checkpoint's own head too.
        Raises LayerError where a target did not run exactly once.

        Examples
        --------
        >>> import torch
        >>> from sporeprint.backbones.load import load_backbone
        >>> backbone = load_backbone("tiny")
        >>> with backbone.run(torch.zeros(2, 3, 28, 28), layers=1) as one_pass:
        ...     one_pass.embedding.shape, sorted(one_pass.layers)
        (torch.Size([2, 128]), ['cls-6', 'patches-6'])
        """
        views = batch_to(views, self.device, self.dtype)
        kinds = self.layer_kinds if kinds is None else kinds
        with self._run(partial(self._through, views, layers, autocast, logits, kinds)) as one_pass:
            yield one_pass

    @contextmanager
    def grid(self, images: Tensor, layers: int = 0, autocast: torch.dtype | None = None) -> Iterator[GridPass]:
        """Run one pass over normalised images [N, 3, H, W] of any size in whole patches; otherwise as `run`.

        Position embeddings are interpolated as the network's own library does it. Raises BackboneError where the
        network cannot take such images (`patch` is None: only its own size), or its tokens are not a grid of patches.
        """
        shape = shape_of(self._grid_network(), images)
        ready = batch_to(images, self.device, self.dtype)
        assert isinstance(ready, Tensor)
        with self._run(partial(self._over_grid, ready, shape, layers, autocast)) as one_pass:
            yield one_pass

    def grid_shape(self, height: int, width: int) -> tuple[int, int]:
        """Return (H_p, W_p), the patches of height x width pixels. Raises BackboneError where it cannot take them."""
        return grid_shape(self._grid_network(), height, width)

    def _grid_network(self, twin: Twin | None = None) -> GridNetwork:
        adapter, first = self.adapter, self.first_block
        if twin is not None:
            adapter, first = twin.parts(adapter), twin(first)
        return GridNetwork(self.name, adapter, self.preprocess, self.patch, self.tokens, self.prefix, self.depth, first)

    def _twin(self) -> Twin:
        whole = self.adapter.head or self.module
        return Twin([whole] if self.finish is None else [whole, self.finish])

    @contextmanager
    def _run(self, through: Callable[[Twin, Shortcut | None], Result]) -> Iterator[Result]:
        """Run `through` on a twin of the network, by the shortcut or by the network's own forward."""
        with own_settings(), self._twin() as twin:
            shortcut = self._find_shortcut() if self.quick else None
            try:
                result = through(twin, shortcut)
            except RunAgain:
                assert shortcut is not None
                shortcut.chained = False
                result = through(self._twin(), shortcut)
            yield result

    @contextmanager
    def _tapped(
        self, twin: Twin, way: Shortcut | None, autocast: torch.dtype | None, whole: bool, trim: bool
    ) -> Iterator[dict[str, Capture]]:
        if way is not None:
            way.take(twin, autocast, whole, trim and way.trims)
        with ExitStack() as stack:
            if autocast is not None:
                first = twin(self.first_block or self.module)
                stack.enter_context(autocast_from(first, self.device.type, autocast))
            targets = {path: twin.parts(target) for path, target in self.targets.items()}
            captures = stack.enter_context(tap(targets))
            yield captures
        check_captured(captures)

    def _over_grid(
        self,
        images: Tensor,
        shape: tuple[int, int],
        layers: int,
        autocast: torch.dtype | None,
        twin: Twin,
        way: Shortcut | None,
    ) -> GridPass:
        if not self._places_checked:
            check_places(self._grid_network(self._twin()))
            self._places_checked = True
        blocks = [(path, twin(block)) for path, block in self._blocks[max(0, self.depth - layers) :]]
        tapped = self._tapped(twin, way, autocast, bool(blocks), trim=False)
        return grid_pass(self._grid_network(twin), images, shape, blocks, tapped)

    def _through(
        self,
        views: Batch,
        layers: int,
        autocast: torch.dtype | None,
        logits: bool,
        kinds: Sequence[str],
        twin: Twin,
        way: Shortcut | None,
    ) -> Pass:
        adapter: Adapter = twin.parts(self.adapter)
        kept = Layers(kinds, self.tokens, self.prefix, adapter.real(views), self._attention_pooling)
        blocks = [twin(block) for _, block in self._blocks]
        trim = not (layers or logits)
        with self._tapped(twin, way, autocast, layers > 0, trim) as captures, kept.keep(blocks, layers):
            outputs, predicted, labels = adapter.predict(views, self.name) if logits else (None, None, None)
            embedding = self._embed(twin, outputs or adapter.outputs(views, self.name), kept.real)
        if "attention" in kinds:
            kept.attend({n: captures[path] for n, path in self.attentions.items() if n > self.depth - layers})
        self._warn_of_layers(kept.unreadable)
        return Pass(embedding, captures, predicted, labels, kept.in_order())

    def _find_shortcut(self) -> Shortcut:
        """Return the shortcut through the network, found on first use in a pass or two over harmless views."""
        if self._shortcut is None:
            targets = [target.layer for target in self.targets.values()]
            shortcut = Shortcut(self.module, [block for _, block in self._blocks], targets)
            probes = self.preprocess.probes()
            batches = [probes[:1]] if self.modality == "image" else [probes, probes[:1]]  # padded, and not
            with torch.no_grad():
                if self._blocks:
                    shortcut.learn([partial(self._plain, views) for views in batches])
            self._shortcut = shortcut
        return self._shortcut

    def _plain(self, views: Sequence[Any], prepare: Callable[[Twin], None]) -> Tensor:
        """Return the embedding of a pass, and nothing else, through a twin that was prepared."""
        twin = self._twin()
        prepare(twin)
        adapter: Adapter = twin.parts(self.adapter)
        batch = batch_to(self.preprocess.collate(views), self.device, self.dtype)
        return self._embed(twin, adapter.outputs(batch, self.name), adapter.real(batch))

    def refresh(self) -> None:
        """Notice weights changed through `.data`, as by merging an adapter; `Fungi` calls it."""
        if self._shortcut is not None:
            self._shortcut.refresh()

    @own_settings()
    def find_read(self, weights: Mapping[str, Tensor]) -> list[str]:
        """Return the names of the weights and buffers that the embedding, or the head's logits, depend on."""
        own = {id(tensor) for tensor in (*self.module.parameters(), *self.module.buffers())}
        if not any(id(tensor) in own for tensor in weights.values()):
            return list(weights) if self.adapter.head else []
        with torch.enable_grad():
            embedding = self._plain(self.preprocess.probes()[:1], lambda twin: None)
        traced = {name: tensor for name, tensor in weights.items() if tensor.requires_grad and id(tensor) in own}
        gradients = torch.autograd.grad(embedding.sum(), list(traced.values()), allow_unused=True) if traced else ()
        unread = {name for name, gradient in zip(traced, gradients, strict=True) if gradient is None}
        inside = own if self.adapter.head is None else {id(tensor) for tensor in weights.values()}
        return [name for name, tensor in weights.items() if id(tensor) in inside and name not in unread]

    @own_settings()
    def digest(self) -> str:
        """Return 16 hex digits over shapes and values of all weights and buffers, in order, whatever their names."""
        whole = self.adapter.head or self.module
        return weights_digest([whole] if self.finish is None else [whole, self.finish])

    def describe(self) -> dict[str, Any]:
        """Return what was found as JSON, for stores and for people."""
        return Description(
            name=self.name,
            module=self.module,
            targets=tuple(self.targets),
            pooling=self.pooling,
            width=self.width,
            preprocess=self.preprocess,
            finish=self.finish,
            tokens=self.tokens,
            prefix=self.prefix,
            depth=self.depth,
            weights=self.digest(),
            caveats=self.caveats,
        ).to_json()

    def __sklearn_clone__(self) -> Backbone:
        return self  # frozen, so clones of an estimator share it

    def _find_attentions(self, captures: Mapping[str, Capture], real: Tensor | None) -> dict[int, str]:
        """Return {number of a block: the target that closes its attention}, where that saw the tokens of one view."""
        tokens = self.tokens if real is None else real.shape[1]
        found = {}
        for number, (path, block) in enumerate(self._blocks, start=1):
            closing = f"{path}.{structure.attention_output(block)}"
            shape = captures[closing].inputs.shape if closing in captures else ()
            if len(shape) == 3 and shape[0] == 1 and tokens in (None, shape[1]):
                found[number] = closing
        return found

    def _embed(self, twin: Twin, outputs: tuple[Tensor | None, Tensor | None], real: Tensor | None) -> Tensor:
        tokens, pooled = outputs
        if self.pooling == "own":
            embedding = pooled
        else:
            if tokens is None:
                raise BackboneError(
                    f"{self.name} gives no tokens, so pooling={self.pooling!r} is not possible; use 'auto'"
                )
            embedding = pool(tokens, self.pooling, real, self.prefix)
        assert embedding is not None
        if self.finish is not None:
            embedding = twin(self.finish)(embedding)
        return precise(embedding)

    def _warn_of_layers(self, unreadable: dict[int, list[int]]) -> None:
        if unreadable and not self._warned:
            self._warned = True
            number, shape = next(iter(unreadable.items()))
            kinds = " and ".join(f"{kind}-N" for kind in self.layer_kinds)
            warn(
                f"{self.name}: {len(unreadable)} blocks give no {kinds}: number {number} has shape {shape}, expected "
                f"[N, {self.tokens or 'T'}, E]"
            )

    @own_settings()
    def _probe(self, pooling: str, prefix: int | None) -> None:
        """Find shapes, prefix and pooling in one pass over a harmless view; in another, through `run`, the width."""
        made_for, size = self.adapter.side, self.preprocess.limits().get("image_size", 0)
        if made_for is not None and size > made_for:  # it could interpolate, but nobody asked for it
            raise BackboneError(
                f"{self.name} fails on one {size} x {size} image: {made_for} x {made_for} is its own size; give "
                f"Preprocess(size={made_for}, ...). Larger images are for `Backbone.grid`"
            )
        probe = batch_to(self.preprocess.collate(self.preprocess.probes()[:1]), self.device, self.dtype)
        network = Probe(self.module, self.adapter, self.preprocess, self.targets, self.name, probe)
        shapes = network.resolve(pooling, prefix)
        self.tokens, self.prefix, self.pooling = shapes.tokens, shapes.prefix, shapes.pooling
        self.layer_kinds, self._attention_pooling = shapes.layers, shapes.attention
        self.attentions: dict[int, str] = {}  # targets that close the attention of a block, by its number
        with self.run(probe) as one_pass:
            embedding = one_pass.embedding
            if embedding.dim() != 2:
                shape = tuple(embedding.shape)
                raise BackboneError(f"{self.name} gives an embedding of shape {shape}; expected [N, E]")
            check_reached(one_pass.captures, embedding, structure.listing(self.module))
            self.attentions = self._find_attentions(one_pass.captures, self.adapter.real(probe))
        self.width = embedding.shape[1]
