"""Contract checks test plug-ins: run them on an objective, backbone, projection or index of your own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sporeprint.backbones.backbone import Backbone
from sporeprint.data.floats import quiet_floats
from sporeprint.gradients.capture import samples_first
from sporeprint.gradients.projections.projection import Projection
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.view_sets import generator
from sporeprint.search.base import RECALL, Index, recall_of


def check_objective(objective: Objective, samples: int = 5, width: int = 16, modality: str | None = None) -> None:
    """Check: one loss per sample; no sample reads another; no state changes; the same latents give the same loss.

    modality: "image", "text" or "audio", for an objective that differs between them; default the first it knows.
    Raises AssertionError that names the broken promise.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from sporeprint import KL, check_objective
    >>> check_objective(KL())
    >>> @dataclass(frozen=True)
    ... class Mean(KL):
    ...     def loss(self, latents):
    ...         return super().loss(latents).mean()
    >>> check_objective(Mean())
    Traceback (most recent call last):
    AssertionError: losses have shape (); return one loss per sample, not their mean
    """
    is_one = hasattr(objective, "loss") and not isinstance(objective, type)
    assert is_one, f"{objective!r} is not an objective; give an instance with a `loss`, such as KL()"
    objective = objective.for_modality(modality or next(iter(objective.by_modality), "image"))
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(samples, objective.views, width, generator=draw, requires_grad=True)
    extras = {name: torch.randn(samples, objective.views, width, generator=draw) for name in objective.extra_heads}
    if getattr(objective, "reads", "") == "logits":
        latents = torch.randn(samples, objective.views, 3, width, generator=draw, requires_grad=True)
        extras["labels"] = torch.randint(width - 1, (samples, objective.views, 3), generator=draw)
        extras["labels"][:, ::2, 1] = -100  # a view may have fewer
    if objective.negatives:
        extras["negatives"] = torch.randn(32, width, generator=draw)
    described, state = repr(objective), torch.get_rng_state()
    untouched = {name: value.clone() for name, value in extras.items()}
    losses = objective.loss(latents, **extras)
    assert losses.shape == (samples,), (
        f"losses have shape {tuple(losses.shape)}; return one loss per sample, not their mean"
    )
    assert losses.isfinite().all(), "a loss is not finite on random latents"
    (gradient,) = torch.autograd.grad(losses[2], latents, retain_graph=True)
    others = [at for at in range(samples) if at != 2]
    assert not gradient[others].any(), "sample 2's loss reads other samples' latents"
    assert gradient[2].any(), "sample 2's loss does not depend on its own latents"
    for name, value in extras.items():
        if name != "negatives":
            changed = {**extras, name: value.clone()}
            changed[name][others] += value[others] != -100
            what = name if name == "labels" else f"{name} latents"
            again = objective.loss(latents, **changed)
            assert torch.equal(again[2], losses[2]), f"sample 2's loss reads other samples' {what}"
    again = objective.loss(latents, **extras)
    assert torch.equal(again, losses), "the same latents gave another loss: the objective keeps state or draws numbers"
    moved = latents.detach().clone()
    moved[others] = torch.randn(moved[others].shape, generator=draw)
    again = objective.loss(moved.requires_grad_(), **extras)  # a loss may read others' latents detached
    (turned,) = torch.autograd.grad(again[2], moved)
    same = torch.allclose(again[2], losses[2], rtol=1e-5)
    same = same and bool((turned[2] - gradient[2]).norm() <= 1e-4 * gradient[2].norm())
    assert same, "sample 2's loss or its gradient changes with other samples' latents"
    assert repr(objective) == described, "the objective changed while its loss was computed"
    assert torch.equal(torch.get_rng_state(), state), "the loss draws from torch's global generator"
    for name, value in untouched.items():
        assert torch.equal(value, extras[name]), f"the loss changes {name} in place"


def check_views(augmentation: Any, sample: Any, preprocess: Any, seed: int = 0) -> None:
    """Check: as many views as promised; the same seed gives the same views; no draw from a global generator.

    augmentation: called with (sample, preprocess, generator); has `views`, their number. sample: as the preprocess'
    `prepare` gives it, such as an RGB PIL image. Raises AssertionError.

    Examples
    --------
    >>> from PIL import Image
    >>> from sporeprint import Preprocess, check_views
    >>> from sporeprint.objectives.views.image import Crops
    >>> check_views(Crops(), Image.new("RGB", (40, 30)), Preprocess(size=32))
    """
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    views = augmentation(sample, preprocess, generator(seed, "row", "check"))
    assert len(views) == augmentation.views, (
        f"the augmentation gives {len(views)} views; its attribute `views` has {augmentation.views} promised"
    )
    again = augmentation(sample, preprocess, generator(seed, "row", "check"))
    assert _equal(views, again), "the same seed gave other views"
    same = str(np.random.get_state()) == before[1] and torch.equal(torch.get_rng_state(), before[0])  # noqa: NPY002
    assert same, "the views draw from a global generator"


def check_backbone(backbone: Backbone, tolerance: float = 1e-4) -> None:
    """Check: it finds its target, leaves the network as it was, also after an exception, and is batch-size invariant.

    tolerance: relative difference between a batch of three and its rows one by one. Raises AssertionError.

    Examples
    --------
    >>> from torch import nn
    >>> from sporeprint import Backbone, Preprocess, check_backbone
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16))
    >>> check_backbone(Backbone(network, target="1", preprocess=Preprocess(size=8)))
    """
    assert isinstance(backbone, Backbone), f"{backbone!r} is not a backbone; give Backbone(module, ...)"
    assert backbone.targets, "no target layer"
    before = _snapshot(backbone.module)
    views = backbone.preprocess.probes()
    path = next(iter(backbone.targets))

    def read(batch: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        with backbone.run(backbone.preprocess.collate(batch)) as one_pass:
            assert one_pass.embedding.shape == (len(batch), backbone.width), "the embedding is not [N, E]"
            capture = one_pass.captures[path]
            (gradient,) = torch.autograd.grad(one_pass.embedding.pow(3).sum(), [capture.outputs], allow_unused=True)
            assert gradient is not None, f"the embedding does not depend on target {path!r}"
            return one_pass.embedding.detach(), samples_first(gradient, len(batch))  # a sample may be several windows

    together = read(views)
    assert _snapshot(backbone.module) == before, "a pass changed parameters, buffers, flags, hooks or .grad"
    for at, view in enumerate(views):
        for whole, alone in zip(together, read([view]), strict=True):
            padded = whole[at]
            if padded.shape != alone[0].shape:  # a shorter text or sound
                padded, padding = padded[: len(alone[0])], padded[len(alone[0]) :]
                assert not padding.any(), f"the embedding of row {at} reads its padding"
            error = (padded - alone[0]).norm() / alone[0].norm().clamp_min(1e-12)
            assert error < tolerance, f"row {at} depends on its batch: relative difference {error:.1e}"
    try:
        with backbone.run(backbone.preprocess.collate(views)):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert _snapshot(backbone.module) == before, "after an exception, parameters, flags, hooks or .grad differ"


def check_projection(projection: Projection, distortion: float | None = None) -> None:
    """Check: linear; equal to its matrix; keeps cosines to `distortion` (5 / sqrt(D)). Raises AssertionError.

    Examples
    --------
    >>> from sporeprint import check_projection
    >>> from sporeprint.gradients.projections.projection import Rademacher
    >>> check_projection(Rademacher(dim=64, width=300))
    """
    draw = torch.Generator().manual_seed(0)
    matrix = projection.matrix()
    assert matrix.shape[0] == projection.dim, f"matrix() is {tuple(matrix.shape)}, dim is {projection.dim}"
    rows = torch.randn(8, matrix.shape[1], generator=draw, dtype=torch.float64)
    rows[4:] += 2 * rows[:4]  # some pairs are alike
    projected = projection(rows)
    mixed = projection(0.3 * rows[:1] - 2 * rows[1:2])
    scale = projected.norm()
    assert (mixed - (0.3 * projected[:1] - 2 * projected[1:2])).norm() < 1e-9 * scale, "the projection is not linear"
    assert (projected - rows @ matrix.double().T).norm() < 1e-9 * scale, "the projection is not its own matrix()"
    allowed = 5 / projection.dim**0.5 if distortion is None else distortion
    worst = (_cosines(projected) - _cosines(rows)).abs().max().item()
    assert worst <= allowed, f"cosines change by up to {worst:.3f}; promised {allowed:.3f}"


@quiet_floats
def check_index(
    index: Index, rows: NDArray[Any], queries: NDArray[np.float32], recall: float = RECALL, k: int = 10
) -> None:
    """Check: true similarities, nearest first; the promised recall; each query by itself. Raises AssertionError.

    rows: [M, D], those of the index; queries: [Q, D], enough to estimate recall (a hundred, say).

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint import check_index
    >>> from sporeprint.search.indexes import make_index
    >>> rows = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    >>> check_index(make_index("exact", rows), rows, rows[:100])
    """
    asked, count = queries.copy(), min(k, len(rows))
    similarities, positions = index.search(queries, k)
    assert np.array_equal(asked, queries), "the search changes its queries in place"
    shapes = f"similarities {list(similarities.shape)}, positions {list(positions.shape)}"
    assert similarities.shape == positions.shape == (len(queries), count), (
        f"{shapes}; expected [{len(queries)}, {count}]: k is cut to the number of rows"
    )
    types = similarities.dtype, positions.dtype
    assert types == (np.float32, np.int64), f"the answer is {types[0]} and {types[1]}; expected float32 and int64"
    assert ((positions >= 0) & (positions < len(rows))).all(), (
        "a position is no row's: expected 0 to the number of rows - 1"
    )
    ordered = np.sort(positions, axis=1)
    assert (ordered[:, 1:] > ordered[:, :-1]).all(), "a row is found twice for one query"
    assert (similarities[:, 1:] <= similarities[:, :-1]).all(), (
        "similarities do not fall: expected the nearest row first"
    )
    actual, best = np.empty(similarities.shape), np.empty(similarities.shape)
    for at, query in enumerate(queries.astype(np.float64)):
        products = np.einsum("md,d->m", rows, query)  # in parts: rows may be too many for a copy in float64
        actual[at], best[at] = products[positions[at]], np.sort(products)[-count:][::-1]
        close = np.abs(actual[at] - similarities[at]) <= 1e-3 * np.abs(products).max()
        assert close.all(), f"query {at}: a similarity is not the product with the row at its position"
    share = recall_of(actual, best)
    assert share >= recall, f"{share:.3f} of the {count} nearest rows are found; promised {recall}"
    for at in range(min(3, len(queries))):
        alone = index.search(queries[at : at + 1], k)
        assert np.array_equal(alone[1][0], positions[at]), f"query {at} has other neighbours alone than among others"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(value, b[key]) for key, value in a.items())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)


def _cosines(rows: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(rows, dim=1)
    return unit @ unit.T


def _snapshot(module: torch.nn.Module) -> list[Any]:
    state = [(name, tensor._version, tensor.double().sum().item()) for name, tensor in module.state_dict().items()]
    flags = [
        (name, parameter.requires_grad, None if parameter.grad is None else parameter.grad.double().sum().item())
        for name, parameter in module.named_parameters()
    ]
    hooks = [
        (name, part.training, len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks))
        for name, part in module.named_modules()
    ]
    return [state, flags, hooks, [sorted(part.__dict__) for part in module.modules()]]
