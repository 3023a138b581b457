"""What training rows choose, by leave-one-out: the features and the predictor, together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import ArrayLike

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.choice.candidates import RAW, REFERENCES, choices
from sporeprint.evaluate.choice.guard import GUARD, check_guard, mean_and_error, surely_better
from sporeprint.evaluate.choice.judges import CHOSEN, PREDICTORS, pair_of, title_of_predictor
from sporeprint.evaluate.choice.leave_one_out import (
    MOST_ROWS,
    Outcomes,
    check_candidates,
    labelled_rows,
    leave_one_out_of,
    silent,
)
from sporeprint.evaluate.result import Result
from sporeprint.features.blocks import Blocks, check_blocks
from sporeprint.features.combine import Combination
from sporeprint.predictors.checks import check_classes, label_array
from sporeprint.predictors.groups import Groups
from sporeprint.predictors.predictor import Predictor
from sporeprint.values import check_choice, check_count, check_list, check_mapping


@dataclass(frozen=True)
class Selection(Result):
    """What `select` returns: the chosen features and predictor, and how they fared against the others.

    value: leave-one-out accuracy of the choice, on the very rows that chose it: a little optimistic. loss: the mean
    squared error of its calibrated leave-one-out probabilities, from 0 to 2, which chose. name, combination: of the
    features. predictor: unfitted, with its choices (k, penalty) fixed; of more rows than `most_rows` ridge takes
    its penalty when it is fitted. reference: the best predictor on the embedding alone, which the choice had to beat.
    gain: leave-one-out accuracy over it. error: its standard error, by the paired rows; it knows nothing of the
    number of candidates that were tried. table: {features: {predictor: loss}}.
    """

    name: str = ""
    combination: Combination = field(default_factory=Combination)
    predictor: Predictor | None = field(default=None, compare=False)  # scikit-learn's estimators are equal to no other
    loss: float = 0.0
    reference: str = ""
    gain: float = 0.0
    error: float = 0.0
    table: dict[str, dict[str, float]] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        """The choice for people: "layers with LDA"."""
        return self.name if self.predictor is None else pair_of(self.name, title_of_predictor(self.predictor))

    def to_json(self) -> dict[str, Any]:
        from sporeprint.values import to_json

        predictor = None if self.predictor is None else title_of_predictor(self.predictor)
        return {**super().to_json(), "combination": to_json(self.combination), "predictor": predictor}

    def __str__(self) -> str:
        chosen = f"{self.title}: leave-one-out {self.value:.1%}"
        points = f"{100 * self.gain:+.1f} ± {100 * self.error:.1f} points"
        return chosen if self.title == self.reference else f"{chosen}; {points} over {self.reference}"


@quiet_floats
def select(
    blocks: Blocks,
    labels: ArrayLike,
    candidates: Mapping[str, Combination] | None = None,
    predictors: Sequence[str] = CHOSEN,
    groups: ArrayLike | None = None,
    guard: float = GUARD,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Selection:
    """The features and the predictor with the least leave-one-out loss on the labelled rows, chosen together.

    blocks: of the training rows, each [N, D]. labels: [N], None (or NaN) for a row without one: whitening is fitted on
    all rows, which costs no label; leave-one-out asks the labelled ones only, at most `most_rows` of them, drawn by
    `seed`. Rows with NaN in any block are left out of both. candidates: by name; they must not reduce (`size`), which
    can be added to the choice. The raw and the half-white embedding are always among them. predictors: of "kNN", "LDA",
    "ridge", "class means" and "probe", which is slow and sees the embedding alone; where the median class has fewer
    than 30 labelled rows, drawn or not, LDA alone, if it is among them. groups: [N]; rows of one group are left out
    together. guard: see `choose`. progress: called with each candidate as its turn comes.
    Raises SampleError for fewer than two labelled rows, blocks of other rows or that are not there, candidates that
    reduce or take the name of one of these two, unknown predictors, and numbers out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint import select
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(60) % 3
    >>> blocks = {"embedding": rng.normal(size=(60, 8)), "kl": np.eye(3)[labels] + 0.1 * rng.normal(size=(60, 3))}
    >>> chosen = select(blocks, labels)
    >>> chosen.combination.blocks, chosen.gain > 0.3
    (('embedding', 'kl'), True)
    """
    check_blocks(blocks, SampleError)
    check_count("seed", seed, 0, SampleError)
    check_count("most_rows", most_rows, 2, SampleError)
    words = check_list("predictors", predictors, '("LDA", "ridge")', SampleError)
    if not words:
        raise SampleError(f"there is no predictor to choose from; expected some of: {', '.join(PREDICTORS)}")
    for word in words:
        check_choice("predictors", word, tuple(PREDICTORS), SampleError)
    if candidates is not None:
        check_mapping("candidates", candidates, "combinations by name, {'mine': Combination(...)}", SampleError)
    listed = choices(list(blocks)) if candidates is None else dict(candidates)
    for name, reference in REFERENCES.items():
        if listed.get(name, reference) != reference:
            raise SampleError(f"a candidate is called {name!r}, which is another's name; give it a name of its own")
    listed = {**REFERENCES, **listed}
    check_guard(guard)
    checked = check_candidates(blocks, listed)
    labelled = labelled_rows(checked, labels, groups, most_rows, seed)
    check_classes(label_array(labels)[labelled.rows])
    if labelled.few and "LDA" in words:
        words = ["LDA"]
    outcomes = leave_one_out_of(
        checked, labels, listed, words, groups, most_rows, seed, tuple(REFERENCES), progress or silent
    )
    settings: dict[str, Any] = {"predictors": words, "seed": seed}
    settings |= {} if groups is None else {"groups": len(labelled.groups)}
    choice = choose(listed, outcomes, guard, labelled.groups, labelled.few, settings)
    return replace(choice, combination=choice.combination.over(list(blocks)))  # the same where there are more blocks


@quiet_floats
def choose(
    candidates: Mapping[str, Combination],
    outcomes: Outcomes,
    guard: float = GUARD,
    groups: Groups | None = None,
    few: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Selection:
    """The best of the candidates and predictors, from what `leave_one_out_of` gave; see `reference_of`.

    A pair is taken only if its loss is below the reference's by more than `guard` standard errors of the paired
    difference; the one with the least loss is taken, the earlier one in a tie; where there is none, the reference
    stays. The errors are of one difference, and many are looked at.
    few: a class has so few rows that leaving one out, which weakens its own class most, misleads about predictors (on
    TREC and Flowers102, LDA looked worse than ridge and was better): then features are chosen for LDA alone.
    """
    check_guard(guard)
    base_name, base_word = reference_of(outcomes, few)
    base = outcomes[base_name][base_word]
    words = {word for name in candidates for word in outcomes[name]}
    if few and "LDA" in words:
        words = {"LDA"}
    pairs = [(name, word) for name in candidates for word in outcomes[name] if word in words]
    chosen, kept = (base_name, base_word), base
    for name, word in sorted(pairs, key=lambda pair: outcomes[pair[0]][pair[1]].loss):  # stable: the earlier in a tie
        outcome = outcomes[name][word]
        if surely_better(base.losses - outcome.losses, guard, groups):
            chosen, kept = (name, word), outcome
            break
    gain, error = mean_and_error(kept.right.astype(float) - base.right, groups)
    whole = {"labelled_rows": len(base.right), "guard": guard, "candidates": len(pairs), **(settings or {})}
    return Selection(
        value=kept.value,
        settings=whole,
        name=chosen[0],
        combination=candidates[chosen[0]],
        predictor=kept.predictor,
        loss=kept.loss,
        reference=pair_of(base_name, title_of_predictor(base.predictor)),
        gain=gain,
        error=error,
        table={name: {word: outcome.loss for word, outcome in outcomes[name].items()} for name in candidates},
    )


def reference_of(outcomes: Outcomes, few: bool = False, names: Iterable[str] = tuple(REFERENCES)) -> tuple[str, str]:
    """What a choice must beat: the predictor with the least loss on the raw and the half-white embedding.

    few: LDA on the raw embedding, where it was asked. Returns the features and the predictor.
    """
    if few and "LDA" in outcomes[RAW]:
        return RAW, "LDA"
    pairs = [(name, word) for name in names for word in outcomes[name]]
    return min(pairs, key=lambda pair: outcomes[pair[0]][pair[1]].loss)
