"""The verdict of a comparison, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sporeprint.evaluate.choice.candidates import ALL, FREE, PLAIN, RAW
from sporeprint.evaluate.table import Entry
from sporeprint.features.blocks import family

SAME = 0.01  # a gain that is surely smaller than a point is none


def verdict(entries: Sequence[Entry], reference: str, recommended: str) -> str:
    """What to use here, the expected gain with its interval, and its price, in one sentence.

    recommended: what the training rows speak for. The test rows say whether it is surely better than the reference.
    """
    by_name = {entry.name: entry for entry in entries}
    base, best = by_name[reference], by_name[recommended]
    the = "the embedding" if base.name == RAW else "the whitened embedding"
    if best.combination == by_name[RAW].combination:
        raw = by_name[RAW].value
        return f"Use the embedding alone (top-1 {raw}): on the training rows nothing is surely better."
    over = f"{best.gain} over {the} (top-1 {base.value.value:.1%})"
    if best.gain.low > 0:
        return f"Use {best.joins}: {over}, for {_price(best, base)}{_also(best, by_name)}."
    if best.gain.high < 0:
        return f"Use {the} alone: what the training rows chose, {best.joins}, is worse here: {over}."
    if best.gain.high < SAME:
        return f"{the.capitalize()} alone is as good: {best.joins} brings {over}."
    return (
        f"Use {the} alone until more test rows say otherwise: what the training rows chose, {best.joins}, "
        f"brings {over}, which may be chance."
    )


def _also(best: Entry, by_name: Mapping[str, Entry]) -> str:
    free, everything, plain = by_name[FREE], by_name[ALL], by_name.get(PLAIN)
    parts = []
    if best is free and everything.passes > free.passes:
        parts.append(f"{everything.passes} passes instead bring {everything.gain}")
    if best is everything and best.passes > 1:
        parts.append(f"one pass brings {free.gain}")
    if plain is not None and "gradients" in _families(best):
        parts.append(f"the best without gradients, {_passes(plain)}, brings {plain.gain}")
    return "".join(f"; {part}" for part in parts)


def _families(entry: Entry) -> list[str]:
    return list(dict.fromkeys(family(name) for name in entry.blocks))


def _price(entry: Entry, base: Entry) -> str:
    rate = "" if entry.rows_per_second is None else f", {_rate(entry.rows_per_second)} rows/s"
    return f"{_passes(entry)} a row{rate}, {entry.bytes_per_row:,} bytes a row against {base.bytes_per_row:,}"


def _rate(rows: float) -> str:
    return f"{rows:,.0f}" if rows >= 100 else f"{rows:.3g}"


def _passes(entry: Entry) -> str:
    return "one pass" if entry.passes == 1 else f"{entry.passes} passes"
