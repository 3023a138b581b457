"""Kinds of features compared: which does best, and what gradients add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sporeprint.evaluate.segmentation import Tally, difference
from sporeprint.run.segment_plan import COPIES, EMBEDDING, LAYERS, Kind

BY_TRAINING, BY_TEST = "picked by the training images", "picked as the best on these very test images"


def by_gradients(kind: Kind, kinds: Sequence[Kind], tallies: Mapping[str, Tally]) -> dict[str, Any] | None:
    """What gradients add to the same features without them; None where these were not made."""
    without = {"paper": EMBEDDING, "layers + gradients": LAYERS}
    prefix = COPIES if kind.copies else ""
    other = prefix + without.get(kind.name.removeprefix(prefix), "")
    if not kind.gradients or other not in {one.name for one in kinds}:
        return None
    return difference(tallies[other], tallies[kind.name]).to_json()


def best_of(kinds: Mapping[str, Any]) -> tuple[str | None, str]:
    """The kind beside the embedding that does best, and how that is known: by the training images where "auto" asked
    them, else by the test images; the last kind where nothing says, None where there is no other."""
    others = {name: one for name, one in kinds.items() if name != EMBEDDING}
    scores = {name: one["chosen"]["score"] for name, one in others.items()}
    how = BY_TRAINING
    if None in scores.values():
        scores, how = {name: (one.get("result") or {}).get("value") for name, one in others.items()}, BY_TEST
    if not scores or None in scores.values():
        return next(reversed(scores), None), ""
    return max(scores, key=lambda name: scores[name]), how
