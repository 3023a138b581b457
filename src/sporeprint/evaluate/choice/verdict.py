"""The verdict of a comparison, in one sentence, and what stands behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sporeprint.evaluate.choice.candidates import ALL, CHOICES, FREE, PLAIN
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.choice.judges import pair_of
from sporeprint.evaluate.table import Entry
from sporeprint.features.blocks import family

SAME = 0.01  # a difference that is surely smaller than a point is none


def verdict(entries: Sequence[Entry], reference: str, recommended: str) -> str:
    """What to use here, the expected gain with its interval, and its price: a sentence of at most 25 words.

    recommended: what the training rows speak for. The test rows say whether it is surely better than the reference.
    """
    by_name = {entry.name: entry for entry in entries}
    base, best = by_name[reference], by_name[recommended]
    gain, choice = best.gain, "the training rows' choice"
    held = f"({base.value.value:.1%}, {passes_of(base)})"
    if is_pair(best, base):
        return f"Use {pair(base)}: {base.value}, {passes_of(base)}; on the training rows nothing is surely better."
    if is_worth(gain):
        known = "no interval" if math.isnan(gain.low) else f"{_points(gain.low)} to {_points(gain.high)}"
        chance = "" if gain.low > 0 else ", maybe chance"
        return (
            f"Use {pair(best)}: {best.value.value:.1%} where the embedding's best is {base.value.value:.1%} "
            f"({_points(gain.value)}, {known}{chance}); {passes_of(best)}."
        )
    if is_same(gain) and not gain.high < 0:
        return f"T{pair(base)[1:]} is as good {held}: {choice} brings {gain}."
    worse = "worse here" if gain.high < 0 else "no better, maybe worse" if gain.high < SAME else "no better"
    return f"Use {pair(base)} {held}: {choice} is {worse}, {gain}."


def advised(entries: Sequence[Entry], reference: str, recommended: str) -> Entry:
    """The entry that the verdict says to use: what the training rows recommend, where it is worth it here."""
    by_name = {entry.name: entry for entry in entries}
    return by_name[recommended if is_worth(by_name[recommended].gain) else reference]


def reasons(entries: Sequence[Entry], reference: str, recommended: str) -> tuple[str, ...]:
    """What the verdict has no room for, in sentences: what was chosen, its price, and what others bring.

    Where the choice is not surely better than the reference and another entry is, that one, which the test rows picked.
    """
    by_name = {entry.name: entry for entry in entries}
    base, best = by_name[reference], by_name[recommended]
    beaten = f"the embedding's best is {pair(base)}"
    if best.gain.low > 0:
        return (f"{best.features}: {_price(best, base)}; {beaten}", *_also(best, by_name))
    chosen = f"what the training rows chose: {pair(best)}, {passes_of(best)} a row; {beaten}"
    return (*([] if is_pair(best, base) else [chosen]), *_surer(entries, reference))


def pair(entry: Entry) -> str:
    """The features and the predictor of an entry: "layers, white 0.5, with LDA", "the embedding with a probe"."""
    return pair_of(entry.features, entry.result.word)


def is_pair(entry: Entry, other: Entry) -> bool:
    """Whether two entries are the same features with the same predictor."""
    return (entry.combination, entry.result.predictor) == (other.combination, other.result.predictor)


def _points(share: float) -> str:
    return f"{100 * share + 0.0:+.1f}"


def is_worth(gain: Interval) -> bool:
    """Whether a gain is above 0, and not surely below `SAME` unless it is surely above 0."""
    return gain.low > 0 or (gain.value > 0 and not gain.high < SAME)  # NaN where there is no interval


def is_same(gain: Interval) -> bool:
    """Whether a difference is surely smaller than `SAME`, up and down. One without an interval is not."""
    return gain.low > -SAME and gain.high < SAME


def _surer(entries: Sequence[Entry], reference: str) -> list[str]:
    """An entry that is surely better on the test rows: one of the choices, else the surest; or none."""
    others = [entry for entry in entries if entry.name != reference]
    sure = [entry for entry in others if entry.gain.low > 0]
    if not sure:
        return []
    best = max(sure, key=lambda entry: (entry.name in CHOICES, entry.gain.low))
    return [
        f"better on these test rows by more than chance, though the training rows do not speak for it: {_row(best)}, "
        f"{best.gain} (picked from {len(others)} by these test rows, so no choice)"
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
        parts.append(f"{_row(plain)} brings {plain.gain}")
    return parts


def _families(entry: Entry) -> list[str]:
    return list(dict.fromkeys(family(name) for name in entry.blocks))


def _price(entry: Entry, base: Entry) -> str:
    rate = "" if entry.rows_per_second is None else f"{entry.rows_per_second:,.1f} rows/s, "
    return f"{rate}{entry.bytes_per_row:,} bytes a row against {base.bytes_per_row:,}"


def _row(entry: Entry) -> str:
    """An entry that is not recommended, by its row in the table if it is a choice, and its price."""
    price = f"{pair(entry)}; {passes_of(entry)}"
    return f"'{entry.name}' ({price})" if entry.name in CHOICES else price


def passes_of(entry: Entry) -> str:
    return "one pass" if entry.passes == 1 else f"{entry.passes} passes"
