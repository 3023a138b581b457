"""Theory gives the variance, over seeds, of the cosine of two gradients after each projection."""

from __future__ import annotations

import torch
from kronecker import near_square


def variance(kind: str, dim: int, g: torch.Tensor, h: torch.Tensor) -> float:
    """Return the variance of the cosine of two unit gradients [O, J] after a projection, to first order in 1 / D.

    The cosine's error is that of a quadratic form w^T S w of a row w of the matrix, where S = sym(g h^T) - r (g g^T +
    h h^T) / 2 on vectors of O * J numbers, and r is the cosine. M and N are S with one of its two axes summed out.
    """

    def square(gg: torch.Tensor, hh: torch.Tensor, gh: torch.Tensor) -> float:
        """Sum the squared norms of the S of parts of g and h, from their inner products."""
        terms = (gg * hh + gh**2) / 2 + r**2 * (gg**2 + hh**2 + 2 * gh**2) / 4 - r * gh * (gg + hh)
        return float(terms.sum())

    r = (g * h).sum()
    whole = float((1 - r**2) ** 2 / 2)
    entries = square(g**2, h**2, g * h)
    if kind == "rademacher":
        return 2 * (whole - entries) / dim
    if kind == "sparse":
        return (2 * whole + (g.numel() ** 0.5 - 3) * entries) / dim
    sides, off, inside = [], [], 0.0
    for a, b in ((g, h), (g.T, h.T)):
        gg, hh, gh = a @ a.T, b @ b.T, a @ b.T
        sides.append((gg, hh, gh))
        side = (gh + gh.T) / 2 - r * (gg + hh) / 2
        off.append(2 * float((side**2).sum() - (side.diagonal() ** 2).sum()))
        inside += square((a * a).sum(1), (b * b).sum(1), (a * b).sum(1))
    rest = whole - inside + entries  # of S, where both axes differ
    if kind == "tensorsketch":
        return (off[0] + off[1] + 2 * rest) / dim
    left, right = near_square(dim, (g.shape[0], g.shape[1]))
    gg, hh, gh = sides[0]
    half = float(r) / 2
    terms = [(0.5, "gh"), (0.5, "hg"), (-half, "gg"), (-half, "hh")]
    grams = {"gg": gg, "hh": hh, "gh": gh, "hg": gh.T}
    turned = sum(
        c * d * float((grams[x[0] + u[1]] * grams[u[0] + x[1]]).sum()) for c, x in terms for d, u in terms
    )  # <S, S with one axis of its two sides exchanged>
    return off[0] / left + off[1] / right + 2 * (rest + turned - inside + entries) / dim
