"""The verdict of a comparison, in one sentence, and what stands behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sporeprint.evaluate.choice.candidates import ALL, FREE, HALF_WHITE, PLAIN, RAW, WHITE
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.table import Entry
from sporeprint.features.blocks import family

_NAMES = {RAW: "the embedding", HALF_WHITE: "the half-whitened embedding", WHITE: "the whitened embedding"}
SAME = 0.01  # a difference that is surely smaller than a point is none
_CHOICES = {FREE: "the choice of one pass", PLAIN: "the choice without gradients", ALL: "the choice among all blocks"}


def verdict(entries: Sequence[Entry], reference: str, recommended: str) -> str:
    """What to use here, the expected gain with its interval, and its price: a sentence of at most 25 words.

    recommended: what the training rows speak for. The test rows say whether it is surely better than the reference.
    """
    by_name = {entry.name: entry for entry in entries}
    base, best = by_name[reference], by_name[recommended]
    gain, choice = best.gain, "the training rows' choice"
    held = f"({base.value.value:.1%}, {_passes(base)})"
    if is_pair(best, base):
        return f"Use {pair(base)}: {base.value}, {_passes(base)}; on the training rows nothing is surely better."
    if gain.low > 0 or (gain.value > 0 and not gain.high < SAME):  # NaN where there is no interval
        known = "no interval" if math.isnan(gain.low) else f"{_points(gain.low)} to {_points(gain.high)}"
        chance = "" if gain.low > 0 else ", maybe chance"
        return (
            f"Use {pair(best)}: {best.value.value:.1%} where the embedding's best is {base.value.value:.1%} "
            f"({_points(gain.value)}, {known}{chance}); {_passes(best)}."
        )
    if is_same(gain) and not gain.high < 0:
        return f"T{pair(base)[1:]} is as good {held}: {choice} brings {gain}."
    worse = "worse here" if gain.high < 0 else "no better, maybe worse" if gain.high < SAME else "no better"
    return f"Use {pair(base)} {held}: {choice} is {worse}, {gain}."


def reasons(entries: Sequence[Entry], reference: str, recommended: str) -> tuple[str, ...]:
    """What the verdict has no room for, in sentences: what was chosen, its price, and what others bring.

    Where the choice is not surely better than the reference and another entry is, that one, which the test rows picked.
    """
    by_name = {entry.name: entry for entry in entries}
    base, best = by_name[reference], by_name[recommended]
    beaten = f"the embedding's best is {pair(base)}"
    if best.gain.low > 0:
        return (f"{best.summary}: {best.joins}; {_price(best, base)}; {beaten}", *_also(best, by_name))
    chosen = f"what the training rows chose: {best.joins}, with {_with(best)}, {_passes(best)} a row; {beaten}"
    return (*([] if is_pair(best, base) else [chosen]), *_surer(entries, reference))


def pair(entry: Entry) -> str:
    """The features and the predictor of an entry: "half-whitened layers with LDA", "the embedding with a probe"."""
    return f"{_NAMES.get(entry.name, entry.summary)} with {_with(entry)}"


def is_pair(entry: Entry, other: Entry) -> bool:
    """Whether two entries are the same features with the same predictor."""
    return (entry.combination, entry.result.predictor) == (other.combination, other.result.predictor)


def _with(entry: Entry) -> str:
    word = entry.result.predictor.split(",")[0]
    return "a probe" if word == "probe" else str(word)


def _points(share: float) -> str:
    return f"{100 * share + 0.0:+.1f}"


def is_same(gain: Interval) -> bool:
    """Whether a difference is surely smaller than `SAME`, up and down. One without an interval is not."""
    return gain.low > -SAME and gain.high < SAME


def _surer(entries: Sequence[Entry], reference: str) -> list[str]:
    """An entry that is surely better on the test rows: one of the choices, else the surest; or none."""
    others = [entry for entry in entries if entry.name != reference]
    sure = [entry for entry in others if entry.gain.low > 0]
    if not sure:
        return []
    best = max(sure, key=lambda entry: (entry.name in _CHOICES, entry.gain.low))
    name = _CHOICES.get(best.name, best.name)
    return [
        f"surely better here, though the training rows do not speak for it, is {name}, {_passes(best)}: {best.gain} "
        f"(one of {len(others)} looked at on these test rows)"
    ]


def _also(best: Entry, by_name: Mapping[str, Entry]) -> list[str]:
    free, everything, plain = by_name[FREE], by_name[ALL], by_name.get(PLAIN)
    parts = []
    if best is free and everything.passes > free.passes:
        parts.append(f"{everything.passes} passes instead bring {everything.gain}")
    if best is everything and best.passes > 1:
        parts.append(f"one pass brings {free.gain}")
        if plain is not None and (plain.combination, plain.gain) == (free.combination, free.gain):
            return parts
    if plain is not None and "gradients" in _families(best):
        parts.append(f"{_CHOICES[PLAIN]}, {_passes(plain)}, brings {plain.gain}")
    return parts


def _families(entry: Entry) -> list[str]:
    return list(dict.fromkeys(family(name) for name in entry.blocks))


def _price(entry: Entry, base: Entry) -> str:
    rate = "" if entry.rows_per_second is None else f"{entry.rows_per_second:,.1f} rows/s, "
    return f"{rate}{entry.bytes_per_row:,} bytes a row against {base.bytes_per_row:,}"


def _passes(entry: Entry) -> str:
    return "one pass" if entry.passes == 1 else f"{entry.passes} passes"
