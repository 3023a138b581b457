"""The support is a sample of plain tokens of the fitting images, among which a token's negatives are looked up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sporeprint.features.dense.token_objectives import TokenSimCLR
from sporeprint.values import canonical

_AT_A_TIME = 256  # tokens looked up together: [256, M] cosines


def owner_of(digest: str) -> int:
    """Return 63 bits of the digest of an image's content, which mark its own tokens whatever its id."""
    return int.from_bytes(hashlib.blake2b(digest.encode(), digest_size=8).digest(), "little") >> 1


@dataclass
class Support:
    """The support holds tokens [M, E], not normalised, and owners [M], `owner_of` each token's image.

    A support of one image alone gives no image negatives: otherwise that image would be the only one without them.
    """

    tokens: Tensor
    owners: Tensor

    def __post_init__(self) -> None:
        self._unit: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def nearest(self, tokens: Tensor, count: int, owner: int | None = None) -> Tensor:
        """Find the positions [P, count] of the nearest tokens by cosine to each of tokens [P, E], nearest first.

        owner: the image whose tokens are left out. Returns fewer than `count` where fewer are left. This is not
        `search.neighbours`: the tokens lie on the backbone's device, and the search is part of an image's pass there.
        """
        unit, owners = self._unit_on_device(tokens)
        others = owners != owner if owner is not None else torch.ones_like(owners, dtype=torch.bool)
        count = min(count, int(others.sum()))
        nearest = []
        for queries in normalize(tokens.to(unit), dim=-1).split(_AT_A_TIME):
            cosines = (queries @ unit.T).masked_fill(~others, -torch.inf)
            nearest.append(cosines.topk(count, dim=1).indices)
        return torch.cat(nearest)

    def negatives(self, objective: TokenSimCLR, tokens: Tensor, owner: int, rng: np.random.Generator) -> Tensor:
        """Draw tokens [M', E] for the head among those nearest to an image's tokens [P, E]. rng: the image's own."""
        if bool((self.owners == self.owners[0]).all()):
            return self.tokens[:0]
        positions = self.nearest(tokens, objective.neighbours, owner).flatten()  # [P * K]
        kept = torch.from_numpy(rng.random(len(positions)) < objective.kept).to(positions.device)
        return self.tokens[positions[kept]]

    def _unit_on_device(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the L2-normalised tokens and their owners on the device of `tokens`."""
        if self._unit is None or self._unit.device != tokens.device:
            self.tokens, self.owners = self.tokens.to(tokens.device), self.owners.to(tokens.device)
            self._unit = normalize(self.tokens, dim=-1)
        return self._unit, self.owners


def least(seed: int, ids: Iterable[str], count: int) -> list[str]:
    """Draw the `count` ids with the smallest seeded digests, whatever their order."""

    def key(row_id: str) -> bytes:
        return hashlib.blake2b(canonical([seed, "dense", row_id]), digest_size=16).digest()

    return sorted(set(ids), key=key)[:count]
