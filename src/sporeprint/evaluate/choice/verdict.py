"""The verdict of a comparison, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sporeprint.evaluate.choice.candidates import ALL, FREE, HALF_WHITE, PLAIN, RAW, WHITE
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.table import Entry
from sporeprint.features.blocks import family

_NAMES = {RAW: "the embedding", HALF_WHITE: "the half-whitened embedding", WHITE: "the whitened embedding"}
SAME = 0.01  # a difference that is surely smaller than a point is none
_CHOICES = {FREE: "the choice of one pass", PLAIN: "the choice without gradients", ALL: "the choice among all blocks"}


def verdict(entries: Sequence[Entry], reference: str, recommended: str) -> str:
    """What to use here, the expected gain with its interval, and its price, in one sentence.

    recommended: what the training rows speak for. The test rows say whether it is surely better than the reference;
    where it is not and another entry is, the sentence ends in that one, which the test rows picked.
    """
    by_name = {entry.name: entry for entry in entries}
    base, best = by_name[reference], by_name[recommended]
    the = _NAMES[base.name]
    over = f"{best.gain} against {the} (top-1 {base.value.value:.1%})"
    chosen = f"what the training rows chose, {best.joins},"
    alone = "on the training rows nothing is surely better"
    is_raw = best.combination == by_name[RAW].combination
    if best.combination == base.combination:
        sentence = f"Use {the} alone (top-1 {base.value}): {alone}"
    elif is_raw and not (best.gain.low > 0 or best.gain.high < 0):  # nor is the reference, which has more right there
        sentence = f"Use the embedding alone (top-1 {best.value}; {best.gain} against {the}): {alone}"
    elif best.gain.low > 0:
        return f"Use {best.joins}: {over}, for {_price(best, base)}{_also(best, by_name)}."
    elif best.gain.high < 0:
        sentence = f"Use {the} alone: {chosen} is worse here: {over}"
    elif is_same(best.gain):
        sentence = f"{the.capitalize()} alone is as good: {best.joins} brings {over}"
    elif best.gain.high < SAME:
        sentence = f"Use {the} alone: {chosen} is no better here and may be worse: {over}"
    else:
        sentence = f"Use {the} alone until more test rows say otherwise: {chosen} brings {over}, which may be chance"
    return f"{sentence}{_surer(entries, reference)}."


def is_same(gain: Interval) -> bool:
    """Whether a difference is surely smaller than `SAME`, up and down. One without an interval is not."""
    return gain.low > -SAME and gain.high < SAME


def _surer(entries: Sequence[Entry], reference: str) -> str:
    """An entry that is surely better on the test rows, in words: one of the choices, else the surest; "" for none."""
    others = [entry for entry in entries if entry.name != reference]
    sure = [entry for entry in others if entry.gain.low > 0]
    if not sure:
        return ""
    best = max(sure, key=lambda entry: (entry.name in _CHOICES, entry.gain.low))
    name = _CHOICES.get(best.name, best.name)
    return (
        f"; surely better here, though the training rows do not speak for it, is {name}, {_passes(best)}: {best.gain} "
        f"(one of {len(others)} looked at on these test rows)"
    )


def _also(best: Entry, by_name: Mapping[str, Entry]) -> str:
    free, everything, plain = by_name[FREE], by_name[ALL], by_name.get(PLAIN)
    parts = []
    if best is free and everything.passes > free.passes:
        parts.append(f"{everything.passes} passes instead bring {everything.gain}")
    if best is everything and best.passes > 1:
        parts.append(f"one pass brings {free.gain}")
    if plain is not None and "gradients" in _families(best):
        parts.append(f"{_CHOICES[PLAIN]}, {_passes(plain)}, brings {plain.gain}")
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
