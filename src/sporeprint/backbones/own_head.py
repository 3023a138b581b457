"""The linear map from the embedding that the checkpoint itself was trained with: a classifier, or CLIP's projection."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.inputs import Batch, batch_to, for_network
from sporeprint.backbones.libraries.adapter import forward_arguments
from sporeprint.backbones.twin import Twin
from sporeprint.errors import BackboneError, first_line
from sporeprint.gradients.switches import own_settings

_ADVICE = 'KL() has a random head; or set fungi.heads["kl"] to an nn.Linear of your own'


def frozen_linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Return a frozen linear layer on the CPU with copies of weight [L, E] and bias [L]."""
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    layer.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
    return layer.requires_grad_(False)


def own_head(backbone: Backbone) -> nn.Linear:
    """Return a frozen copy, on the CPU, of the linear layer that maps the embedding [N, E] to the checkpoint's output.

    That is the logits of a classifier of images, texts or sound, or the projection of one of CLIP's towers.
    Raises BackboneError where none does, such as a classifier of another pooling than the embedding's.

    Examples
    --------
    >>> from transformers import ViTConfig, ViTForImageClassification
    >>> from sporeprint import Backbone, Preprocess
    >>> from sporeprint.backbones.own_head import own_head
    >>> config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=16, num_labels=5)
    >>> own_head(Backbone(ViTForImageClassification(config), preprocess=Preprocess(size=16)))
    Linear(in_features=8, out_features=5, bias=True)
    """
    layer = own_layer(backbone)
    return frozen_linear(layer.weight, layer.bias)


@own_settings()
def own_layer(backbone: Backbone) -> nn.Linear:
    """Return the layer of `own_head` as it lies in the network. Raises BackboneError."""
    embeddings, outputs = _on_probes(backbone)
    tolerance = max(1e-4, 8 * torch.finfo(backbone.dtype).eps)
    layers = {path: layer for path, layer in backbone.whole.named_modules() if isinstance(layer, nn.Linear)}
    for layer in layers.values():
        if layer.in_features != backbone.width:
            continue
        bias = None if layer.bias is None else layer.bias.to(embeddings)
        latents = linear(embeddings, layer.weight.to(embeddings), bias)
        for output in outputs:
            if output.shape == latents.shape and (output - latents).norm() <= tolerance * output.norm():
                return layer
    raise _refusal(backbone, layers, outputs)


@torch.no_grad()
def _on_probes(backbone: Backbone) -> tuple[Tensor, list[Tensor]]:
    """Return the embeddings [N, E] of harmless views, and what the whole network makes of them, each [N, L].

    One view a pass: classifiers of texts may not know which tokens are padding.
    """
    embeddings, outputs = [], []
    for view in backbone.preprocess.probes():
        batch = batch_to(backbone.preprocess.collate([view]), backbone.device, backbone.dtype)
        with backbone.run(batch) as one_pass:
            embeddings.append(one_pass.embedding)
        with Twin([backbone.whole]) as twin:
            try:
                found = _run_whole(twin(backbone.whole), backbone, batch)
            except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
                raise BackboneError(
                    f"{backbone.name}: a {type(backbone.whole).__name__} fails as a whole on one "
                    f"{backbone.preprocess.sample}: {first_line(error)}; so no head of its own can be found. {_ADVICE}"
                ) from error
        values = found.values() if isinstance(found, Mapping) else found if isinstance(found, tuple) else [found]
        outputs.append([value for value in values if isinstance(value, Tensor) and value.dim() == 2])
    embedding = torch.cat(embeddings)
    return embedding, [torch.cat(views).to(embedding) for views in zip(*outputs, strict=True)]


def _run_whole(whole: Any, backbone: Backbone, batch: Batch) -> Any:
    """Run a network with its head: CLIP's tower with its projection, any other network as it is called."""
    batch = for_network(batch)
    tower: Any = getattr(whole, f"get_{backbone.modality}_features", None)
    if isinstance(batch, Tensor) and backbone.adapter.library == "transformers":
        batch = {"pixel_values": batch}
    if isinstance(batch, Tensor):
        return whole(batch)
    accepted = forward_arguments(whole) if tower is None else inspect.signature(tower).parameters
    return (tower or whole)(**{name: tensor for name, tensor in batch.items() if name in accepted})


def _refusal(backbone: Backbone, layers: Mapping[str, nn.Linear], outputs: list[Tensor]) -> BackboneError:
    """Return the error, which names the last layers that have the outputs' width and do not take the embedding."""
    widths = {output.shape[1] for output in outputs if output.shape[1] != backbone.width}
    last = [f"{path} ({layer.in_features} to {layer.out_features})" for path, layer in layers.items()][::-1]
    last = [text for text, layer in zip(last, list(layers.values())[::-1], strict=True) if layer.out_features in widths]
    what = f"it has {last[0]}, which takes another vector" if last else "it ends in the embedding or in tokens"
    return BackboneError(
        f"{backbone.name} has no linear head of its own on this embedding ({backbone.width} numbers, "
        f"pooling={backbone.pooling!r}): {what}. Give the checkpoint with its classifier or projection and its own "
        f"pooling. {_ADVICE}"
    )
