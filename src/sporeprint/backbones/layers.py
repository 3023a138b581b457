"""Pool the tokens of a network's last blocks while a pass runs: the layer blocks, which cost no pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from sporeprint.backbones.pooling import mean, pool


@dataclass
class Layers:
    """What is kept of one pass. tokens: their number, None where the sample decides. real: those that count [N, T]."""

    kinds: Sequence[str]
    tokens: int | None
    prefix: int
    real: Tensor | None
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

    def _hook(self, number: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            tokens = output if isinstance(output, Tensor) else output[0]
            pooled = self._pooled(number, tokens.detach())  # now: the next block may add in place
            self.blocks.update(pooled)
            if not pooled:
                self.unreadable[number] = list(tokens.shape)

        return hook

    def _pooled(self, number: int, tokens: Tensor) -> dict[str, Tensor]:
        expected = self.tokens if self.real is None else self.real.shape[1]
        if tokens.dim() != 3 or (expected is not None and tokens.shape[1] != expected):
            return {}  # another layout (windows, time first): only known ones are read
        tokens = precise(tokens)
        poolers = {
            "cls": lambda: tokens[:, 0].clone(),
            "last": lambda: pool(tokens, "last", self.real, 0).clone(),
            "patches": lambda: mean(tokens[:, self.prefix :]),
            "tokens": lambda: pool(tokens, "mean", self.real, self.prefix),
            "max": lambda: pool(tokens, "max", self.real, self.prefix),
        }
        return {f"{kind}-{number}": poolers[kind]() for kind in self.kinds}


def precise(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 where it has that."""
    return tensor if tensor.itemsize == 8 else tensor.float()
