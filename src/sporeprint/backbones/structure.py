"""Find the blocks, the target layer and the tokens of a transformer by its structure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from sporeprint.errors import LayerError
from sporeprint.gradients.capture import Target, is_linear, widths

# Last name of a linear layer that makes queries, keys, values or gates, in the codebases that we know.
_INNER = {
    "q", "k", "v", "qkv", "kv", "q_proj", "k_proj", "v_proj", "qkv_proj", "in_proj", "q_lin", "k_lin", "v_lin",
    "linear_q", "linear_k", "linear_v", "linear_pos", "query", "key", "value", "query_proj", "key_proj",
    "value_proj", "query_key_value", "Wqkv", "c_attn", "q_attn", "gate", "g",
}  # fmt: skip


def blocks(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Find the transformer's blocks, first to last: the longest list of modules of one class that hold an attention.

    Where that is one stage of several (`layers.2.blocks`, as in Swin), the other stages' lists belong to it.
    Returns [(path, block)]; empty where there is no such list.
    """
    stages: dict[str, list[tuple[str, nn.Module]]] = {}
    place, longest = "", 0
    for path, candidate in module.named_modules():
        if isinstance(candidate, (nn.ModuleList, nn.Sequential)) and len(candidate):
            children = list(candidate.named_children())
            one_class = len({type(child) for _, child in children}) == 1
            if one_class and attention_output(children[-1][1]) is not None:
                members = [(f"{path}.{name}" if path else name, child) for name, child in children]
                stages.setdefault(_place(path), []).extend(members)
                if len(members) > longest:
                    place, longest = _place(path), len(members)
    return stages.get(place, [])


def _place(path: str) -> str:
    """Return one name for the lists of all stages: layers.*.blocks for layers.2.blocks."""
    return re.sub(r"\b\d+\b", "*", path)


def attention_output(block: nn.Module) -> str | None:
    """Return the path in a block of the linear layer that closes its first (self-)attention, or None."""
    for path, attention in block.named_modules():
        if "att" not in path.rsplit(".", 1)[-1].lower() or is_linear(attention):
            continue
        layers = [(name, layer) for name, layer in attention.named_modules() if is_linear(layer)]
        inner = [(name, layer) for name, layer in layers if name.rsplit(".", 1)[-1] in _INNER]
        tokens = {widths(layer)[0] for _, layer in inner}  # their width, which the output projection returns to
        closing = [
            name for name, layer in layers if (name, layer) not in inner and (not tokens or widths(layer)[1] in tokens)
        ]
        if closing:
            return f"{path}.{closing[-1]}"
    return None


def linear_layers(module: nn.Module) -> list[str]:
    """Return the paths of every `nn.Linear` and Conv1D: the layers that can be read."""
    return [path for path, layer in module.named_modules() if is_linear(layer)]


def resolve(module: nn.Module, paths: Iterable[str] | None) -> dict[str, Target]:
    """Return the targets at `paths`; by default the last block's attention output. Raises LayerError."""
    if paths is None:
        layers = blocks(module)
        if not layers:
            raise LayerError(
                f"no list of transformer blocks with an attention in {type(module).__name__}; name the layer to read, "
                f"target=PATH. Linear layers here: {listing(module)}"
            )
        last = layers[-1]
        paths = [f"{last[0]}.{attention_output(last[1])}"]
        if re.search(r"\.(base_layer|lora_\w+)\b", paths[0]):
            raise LayerError(
                f"the layer to read by default holds an adapter (LoRA): {paths[0]!r}; merge it first, "
                "merge_and_unload(), or name another layer, target=PATH"
            )
    return {path: _target(module, path) for path in paths}


def _target(module: nn.Module, path: str) -> Target:
    layers = dict(module.named_modules(remove_duplicate=False))
    if path not in layers:
        raise LayerError(f"no layer {path!r} in {type(module).__name__}. Linear layers here: {listing(module)}")
    layer = layers[path]
    if isinstance(layer, nn.MultiheadAttention):
        path, layer = f"{path}.out_proj", layer.out_proj
    if not is_linear(layer):
        raise LayerError(
            f"layer {path!r} is a {type(layer).__name__}; FUNGI reads an nn.Linear, or GPT-2's Conv1D. Linear layers "
            f"here: {listing(module)}"
        )
    return Target(path, layer, layers[path.rpartition(".")[0]] if path else None)


def listing(module: nn.Module, most: int = 40) -> str:
    """List the last linear layers, for messages."""
    paths = linear_layers(module)
    if not paths:
        return "none"
    shown = paths[-most:]  # the last blocks are the likely targets
    return ("... " if len(paths) > most else "") + ", ".join(shown)
