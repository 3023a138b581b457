"""Pool the tokens of a network's last blocks while a pass runs: the layer blocks, which cost no pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from sporeprint.backbones.pooling import mean, pool
from sporeprint.gradients.capture import Capture


@dataclass
class Layers:
    """What is kept of one pass. tokens: their number, None where the sample decides. real: those that count [N, T]."""

    kinds: Sequence[str]
    tokens: int | None
    prefix: int
    real: Tensor | None
    attention: str  # how the attention's tokens are pooled
    blocks: dict[str, Tensor] = field(default_factory=dict)  # "cls-12", "patches-12", "tokens-12": [N, E]
    unreadable: dict[int, list[int]] = field(default_factory=dict)  # shapes other than [N, T, E], by block number

    @contextmanager
    def keep(self, blocks: Sequence[nn.Module], last: int) -> Iterator[None]:
        """Pool the `last` last of `blocks` in the passes while the context is open."""
        first = max(0, len(blocks) - last)
        numbered = enumerate(blocks[first:], start=first + 1)
        handles = [block.register_forward_hook(self._hook(number)) for number, block in numbered]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def attend(self, captures: Mapping[int, Capture]) -> None:
        """Pool what the attentions' output projections saw, by the number of the block: "attention-12" [N, I]."""
        for number, capture in captures.items():
            pooled = pool(precise(capture.inputs), self.attention, self.real, self.prefix)
            self.blocks[f"attention-{number}"] = pooled.clone()

    def in_order(self) -> dict[str, Tensor]:
        """The blocks by number, those of one number in the order of the kinds."""

        def place(name: str) -> tuple[int, int]:
            kind, _, number = name.rpartition("-")
            return int(number), self.kinds.index(kind)

        return {name: self.blocks[name] for name in sorted(self.blocks, key=place)}

    def _hook(self, number: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            tokens = output if isinstance(output, Tensor) else output[0]
            pooled = self._pooled(number, tokens.detach())  # now: the next block may add in place
            self.blocks.update(pooled or {})
            if pooled is None:
                self.unreadable[number] = list(tokens.shape)

        return hook

    def _pooled(self, number: int, tokens: Tensor) -> dict[str, Tensor] | None:
        """The blocks of these tokens; None where they have another layout."""
        expected = self.tokens if self.real is None else self.real.shape[1]
        if tokens.dim() != 3 or (expected is not None and tokens.shape[1] != expected):
            return None  # another layout (windows, time first): only known ones are read
        tokens = precise(tokens)
        poolers = {
            "cls": lambda: tokens[:, 0].clone(),
            "last": lambda: pool(tokens, "last", self.real, 0).clone(),
            "patches": lambda: mean(tokens[:, self.prefix :]),
            "tokens": lambda: pool(tokens, "mean", self.real, self.prefix),
            "max": lambda: pool(tokens, "max", self.real, self.prefix),
        }
        return {f"{kind}-{number}": poolers[kind]() for kind in self.kinds if kind in poolers}


def precise(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 where it has that."""
    return tensor if tensor.itemsize == 8 else tensor.float()
