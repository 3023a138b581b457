"""Find the blocks, the target layer and the tokens of a transformer by its structure."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from sporeprint.capture import Target
from sporeprint.errors import LayerError

# Last name of a linear layer that makes queries, keys, values or gates, in the codebases that we read.
_INNER = {"q", "k", "v", "qkv", "kv", "query", "key", "value", "q_proj", "k_proj", "v_proj", "in_proj", "gate", "g"}


def blocks(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The transformer's blocks, first to last: the longest list of modules of one class that hold an attention.

    Returns [(path, block)]; empty where there is no such list.
    """
    best: list[tuple[str, nn.Module]] = []
    for path, candidate in module.named_modules():
        if isinstance(candidate, (nn.ModuleList, nn.Sequential)) and len(candidate) > len(best):
            children = list(candidate.named_children())
            one_class = len({type(child) for _, child in children}) == 1
            if one_class and attention_output(children[-1][1]) is not None:
                best = [(f"{path}.{name}" if path else name, child) for name, child in children]
    return best


def attention_output(block: nn.Module) -> str | None:
    """Path, inside a block, of the linear layer that closes its first (self-) attention; None where there is none."""
    for path, attention in block.named_modules():
        if "att" not in path.rsplit(".", 1)[-1].lower() or isinstance(attention, nn.Linear):
            continue
        layers = [(name, layer) for name, layer in attention.named_modules() if isinstance(layer, nn.Linear)]
        inner = [(name, layer) for name, layer in layers if name.rsplit(".", 1)[-1] in _INNER]
        widths = {layer.in_features for _, layer in inner}  # of the tokens, which the output projection returns to
        closing = [
            name
            for name, layer in layers
            if (name, layer) not in inner and (not widths or layer.out_features in widths)
        ]
        if closing:
            return f"{path}.{closing[-1]}"
    return None


def linear_layers(module: nn.Module) -> list[str]:
    """Paths of every `nn.Linear`: what can be read."""
    return [path for path, layer in module.named_modules() if isinstance(layer, nn.Linear)]


def resolve(module: nn.Module, paths: Iterable[str] | None) -> dict[str, Target]:
    """The targets at `paths`; by default the output projection of the last block's attention. Raises LayerError."""
    if paths is None:
        found = blocks(module)
        if not found:
            raise LayerError(
                f"no list of transformer blocks with an attention in {type(module).__name__}; name the layer to read, "
                f"target=PATH. Linear layers here: {listing(module)}"
            )
        last = found[-1]
        paths = [f"{last[0]}.{attention_output(last[1])}"]
    return {path: _target(module, path) for path in paths}


def _target(module: nn.Module, path: str) -> Target:
    layers = dict(module.named_modules(remove_duplicate=False))
    if path not in layers:
        raise LayerError(f"no layer {path!r} in {type(module).__name__}. Linear layers here: {listing(module)}")
    layer = layers[path]
    if isinstance(layer, nn.MultiheadAttention):
        path, layer = f"{path}.out_proj", layer.out_proj
    if not isinstance(layer, nn.Linear):
        raise LayerError(
            f"layer {path!r} is a {type(layer).__name__}; FUNGI reads an nn.Linear. Linear layers here: "
            f"{listing(module)}"
        )
    parent = layers.get(path.rpartition(".")[0])
    return Target(path, layer, parent if isinstance(parent, nn.MultiheadAttention) else None)


def listing(module: nn.Module, most: int = 40) -> str:
    """The last of them, for messages."""
    paths = linear_layers(module)
    if not paths:
        return "none"
    shown = paths[-most:]  # the last blocks are the likely targets
    return ("... " if len(paths) > most else "") + ", ".join(shown)
