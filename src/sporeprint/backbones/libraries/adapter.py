"""Describe one network as sporeprint calls it, whatever library it comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones.inputs.inputs import Batch, for_network
from sporeprint.errors import BackboneError

_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _all(batch: Batch) -> None:
    """Return None: no token is padding."""


@dataclass(frozen=True)
class Adapter:
    """One network as sporeprint calls it.

    module: the part that is read. call: a batch to tokens [N, T, E], pooled [N, E], a pair (tokens, pooled) or a
    Hugging Face output. auto: what pooling="auto" means: "cls", "mean", or "own" (the pooled output, where there is
    one), "found": CLS, mean or last token, by what a pass shows. prefix: number of tokens before the patches, None
    where it has to be found. real: a batch to the tokens [N, T] that are not padding, None where none is. target: path
    of the layer to read, where the rule does not find it. head: the whole of a masked language model, whose output has
    logits. patch: side of its patches in pixels, where it takes other sizes too; side: that of the images that it was
    made for, where its own preprocess must not make smaller ones. pooler: whether a pooler_output may be read; False
    where its weights may be random. mean: whether tokens are averaged though one is a CLS. No field is a closure: a
    fitted Fungi can be pickled and copied.
    """

    module: nn.Module
    call: Callable[[Batch], Any]
    auto: str = "own"
    prefix: int | None = None
    library: str = "torch"
    modality: str = "image"
    real: Callable[[Any], Tensor | None] = _all
    target: str | None = None
    head: nn.Module | None = None
    patch: int | None = None
    side: int | None = None
    pooler: bool = True
    mean: bool = False

    def predict(self, batch: Batch, name: str) -> tuple[tuple[Tensor | None, Tensor | None], Tensor, Tensor]:
        """Return what `outputs` gives, and from the same pass the head's logits [N, M, C] and their labels [N, M].

        M: the most masked tokens of any view; the others' last labels are -100. Logits for every token would be too
        large. Raises BackboneError.
        """
        if self.head is None:
            raise BackboneError(
                f"{name} has no masked-language-model head; load a checkpoint that has one, or leave the objective out"
            )
        assert isinstance(batch, dict)
        hidden = batch["labels"] >= 0
        at = (~hidden).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(hidden.sum(dim=1).max())]
        kept: list[Any] = []

        def narrow(_: nn.Module, __: Any, output: Any) -> Any:
            kept.append(output)
            return type(output)(**{**output, "last_hidden_state": _gather(output["last_hidden_state"], at)})

        handle = self.module.register_forward_hook(narrow)
        try:
            logits = call_text(self.head, accepted_arguments(self.module), for_network(batch)).logits
        finally:
            handle.remove()
        return self._read(kept[0], name), logits, batch["labels"].gather(1, at)

    def outputs(self, batch: Batch, name: str) -> tuple[Tensor | None, Tensor | None]:
        """Return (tokens, pooled) of a pass; `name` is the backbone's, for messages. Raises BackboneError."""
        return self._read(self.call(for_network(batch)), name)

    def _read(self, output: Any, name: str) -> tuple[Tensor | None, Tensor | None]:
        if isinstance(output, Tensor):
            return (output, None) if output.dim() == 3 else (None, output)
        if isinstance(output, tuple) and len(output) == 2:
            if self.library == "torch" and not _is_pair(*output):
                raise BackboneError(
                    f"{name} returned a pair, {_shape(output[0])} and {_shape(output[1])}; expected tokens [N, T, E] "
                    "and their pooled embedding [N, E]. Wrap the module so that it returns the embedding alone"
                )
            if not self.pooler:
                raise BackboneError(
                    f"{name} returned a pair, tokens and a pooled embedding; the weights of the pooler inside are "
                    "random where a checkpoint has none. Return the embedding alone, as a tensor [N, E]"
                )
            return output
        tokens, pooled = getattr(output, "last_hidden_state", None), getattr(output, "pooler_output", None)
        if tokens is None and pooled is None:
            raise BackboneError(
                f"{name} returned a {type(output).__name__}; expected a tensor [N, E] or [N, T, E], or a Hugging "
                "Face output with last_hidden_state or pooler_output"
            )
        if not self.pooler and tokens is None:
            raise BackboneError(
                f"{name} returned a pooler_output alone, whose weights are random where a checkpoint has none; return "
                "its last_hidden_state too, or the embedding as a tensor [N, E]"
            )
        return tokens, pooled if self.pooler else None


def attention_of(batch: Batch) -> Tensor | None:
    """Return [N, T], true for the tokenizer's tokens that are pooled; None without an attention mask."""
    if not isinstance(batch, Mapping) or "attention_mask" not in batch:
        return None
    return batch.get("pooled", batch["attention_mask"]).bool()


def _is_pair(tokens: Any, pooled: Any) -> bool:
    """Return whether they are tokens and their embedding, not (embedding, logits) or (tokens, logits)."""
    if not (isinstance(tokens, Tensor) and isinstance(pooled, Tensor)):
        return False
    return tokens.dim() == 3 and pooled.dim() == 2 and tokens.shape[::2] == pooled.shape


def _shape(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _gather(tokens: Tensor, at: Tensor) -> Tensor:
    """Gather [N, T, E] at [N, M] to [N, M, E]."""
    return tokens.gather(1, at.unsqueeze(2).expand(-1, -1, tokens.shape[2]))


def accepted_arguments(module: nn.Module) -> frozenset[str]:
    return frozenset({"input_ids", "attention_mask", "token_type_ids"} & set(forward_arguments(module)))


def call_text(module: nn.Module, accepted: frozenset[str], batch: Batch) -> Any:
    assert isinstance(batch, Mapping)
    return module(**{name: tensor for name, tensor in batch.items() if name in accepted})


def forward_arguments(module: nn.Module | type[nn.Module]) -> Collection[str]:
    """Return what forward takes by name; of one that passes on whatever it is given, what the one it replaces takes."""
    kind = module if isinstance(module, type) else type(module)
    inherited = [vars(base)["forward"] for base in kind.__mro__ if "forward" in vars(base)]
    for forward in inherited if module is kind else [module.forward, *inherited]:
        parameters = inspect.signature(forward).parameters
        if not all(name == "self" or part.kind in _ANY for name, part in parameters.items()):
            return parameters
    return ()
