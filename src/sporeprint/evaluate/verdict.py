"""What a comparison comes to, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sporeprint.combine import family
from sporeprint.evaluate.comparison import Compared
from sporeprint.evaluate.intervals import Interval
from sporeprint.evaluate.measure import ALL, FREE, PLAIN
from sporeprint.evaluate.select import RAW, WHITE

_THE = {RAW: "the embedding", WHITE: "the whitened embedding"}


def verdict(entries: Sequence[Compared], reference: str, more: Interval) -> str:
    """One sentence: what to use here, the expected gain with its interval, and its price.

    more: the gain of the choice among everything over the choice of one pass, on the same rows.
    """
    by_name = {one.name: one for one in entries}
    base, free, everything = by_name[reference], by_name[FREE], by_name[ALL]
    sure = [one for one in (free, everything) if one.gain.low > 0]
    if not sure:
        return _nothing_better(base, [free, everything])
    best = sure[0]
    # More passes must show that they bring more, not only that they bring something.
    if everything in sure and best is free and more.low > 0:
        best = everything
    return (
        f"Use {best.joins}: {best.gain} over {_THE[reference]} (top-1 {base.value.value:.1%}), for {_price(best, base)}"
        f"{_also(best, by_name)}."
    )


def _nothing_better(base: Compared, choices: Sequence[Compared]) -> str:
    alone = f"{_THE[base.name].capitalize()} alone is"
    tried = [one for one in choices if one.combination != base.combination]
    if not tried:
        return f"{alone} as good here (top-1 {base.value}): nothing beat it on the training rows."
    most = max(tried, key=lambda one: one.gain.value)
    word = "better" if most.gain.high < 0 else "as good"
    return f"{alone} {word} here (top-1 {base.value}): the best choice brought {most.gain}."


def _also(best: Compared, by_name: Mapping[str, Compared]) -> str:
    free, everything, plain = by_name[FREE], by_name[ALL], by_name.get(PLAIN)
    parts = []
    if best is free and everything.passes > free.passes:
        parts.append(f"{everything.passes} passes instead bring {everything.gain}")
    if best is everything and best.passes > 1:
        parts.append(f"one pass brings {free.gain}")
    if plain is not None and "gradients" in _families(best):
        parts.append(f"the best without gradients, {_passes(plain)}, brings {plain.gain}")
    return "".join(f"; {part}" for part in parts)


def _families(entry: Compared) -> list[str]:
    return list(dict.fromkeys(family(name) for name in entry.blocks))


def _price(entry: Compared, base: Compared) -> str:
    rate = "" if entry.rows_per_second is None else f", {_rate(entry.rows_per_second)} rows/s"
    return f"{_passes(entry)} a row{rate}, {entry.bytes_per_row:,} bytes a row against {base.bytes_per_row:,}"


def _rate(rows: float) -> str:
    return f"{rows:,.0f}" if rows >= 100 else f"{rows:.3g}"


def _passes(entry: Compared) -> str:
    return "one pass" if entry.passes == 1 else f"{entry.passes} passes"
