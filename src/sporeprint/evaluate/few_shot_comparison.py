"""What helps with few labels: some labelled rows of each class are drawn several times, and each draw chooses alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.evaluate.accuracy import mean_per_class
from sporeprint.evaluate.analyse import analyse
from sporeprint.evaluate.choice.candidates import CHOICES, FREE
from sporeprint.evaluate.choice.group_splits import groups_note, groups_within
from sporeprint.evaluate.choice.intervals import bootstrap_difference, bootstrap_mean
from sporeprint.evaluate.choice.judges import judge_of, pair_of, title_of_predictor, word_of
from sporeprint.evaluate.choice.trained import Guesses, Trained
from sporeprint.evaluate.choice.verdict import reasons, verdict
from sporeprint.evaluate.comparison import Accuracy, Comparison
from sporeprint.evaluate.shots import draws as rows_of_draws
from sporeprint.evaluate.table import Costs, Entry
from sporeprint.features.blocks import Blocks
from sporeprint.features.whiten import Axes
from sporeprint.predictors.row_order import content_order

_T = TypeVar("_T")


def few_shot_comparison(
    train: Blocks,
    labels: NDArray[Any],
    test: Blocks,
    test_labels: NDArray[Any],
    costs: Costs,
    shots: int,
    draws: int,
    groups: ArrayLike | None,
    test_groups: ArrayLike | None,
    most_rows: int,
    level: float,
    seed: int,
    known: dict[str, Any],
    progress: Callable[[str], None],
) -> Comparison:
    """`compare` with `shots` labelled rows of each class, drawn `draws` times; each draw makes its own choice.

    Only the drawn rows have labels: the reference, the choice and every predictor come from them alone. Whitening sees
    all training rows, which costs no label. Figures are means over the draws, intervals a bootstrap over test rows of
    each row's mean. Rows of a draw of one group are left out one by one. All draws share the reference that most of
    them name; an entry shows what most draws chose for it.
    """

    def of_draw(number: int) -> Callable[[str], None]:
        return lambda step: progress(f"draw {number} of {draws}: {step}")

    choices: list[Trained] = []
    apart: list[NDArray[Any] | None] = []
    whiteners: dict[tuple[str, Any], Axes] = {}
    order = content_order(train["embedding"], np.unique(labels, return_inverse=True)[1])
    for number, drawn in enumerate(rows_of_draws(labels[order], shots, draws, seed), 1):
        rows = order[drawn]
        given = np.full(len(labels), None, dtype=object)
        given[rows] = labels[rows].tolist()
        apart.append(groups_within(groups, rows, len(labels)))
        own = None if apart[-1] is None else groups
        choices.append(Trained(train, given, costs, most_rows, seed, own, of_draw(number), whiteners))
    name, word = _most(trained.pair for trained in choices)
    reference = name, judge_of(word)
    runs: list[tuple[Trained, Guesses]] = []
    for number, trained in enumerate(choices, 1):
        trained.refer_to(name, word)
        runs.append((trained, trained.guesses(test, of_draw(number))))
    progress("intervals, and what the blocks share")
    recommended = _most(trained.recommended for trained, _ in runs)
    drawn_as: dict[str, Any] = {"level": level, "seed": seed, "groups": test_groups}

    def guessed(name: str, judge: str) -> list[NDArray[Any]]:
        return [guesses[name][_own_judge(trained, name, judge, runs)] for trained, guesses in runs]

    def right(name: str, judge: str) -> NDArray[np.float64]:
        return np.array([guess == test_labels for guess in guessed(name, judge)], float)

    base = right(*reference)

    def accuracy(name: str, judge: str) -> Accuracy:
        outcomes = [trained.outcomes[name][_own_judge(trained, name, judge, runs)] for trained, _ in runs]
        hits = right(name, judge)
        return Accuracy(
            value=bootstrap_mean(hits.mean(axis=0), **drawn_as),
            mean_per_class=float(np.mean([mean_per_class(row, test_labels) for row in hits])),
            gain=bootstrap_difference(base.mean(axis=0), hits.mean(axis=0), **drawn_as),
            predictor=_most(title_of_predictor(outcome.predictor) for outcome in outcomes),
            leave_one_out=float(np.mean([outcome.value for outcome in outcomes])),
            loss=float(np.mean([outcome.loss for outcome in outcomes])),
        )

    entries: list[Entry] = []
    for entry in runs[0][0].entries:
        name = entry.name
        shown = _most(trained.entry(name).combination for trained, _ in runs)
        typical = next(trained.entry(name) for trained, _ in runs if trained.entry(name).combination == shown)
        judge = reference[1] if name == reference[0] else _judge(runs, name)
        results = {of: accuracy(name, of) for of in runs[0][0].outcomes[name]}
        entries.append(replace(typical, judge=judge, results=results))
    by_name = {entry.name: entry for entry in entries}
    chosen = by_name[recommended]
    before, after = (np.concatenate(guessed(*of)) for of in (reference, (recommended, chosen.judge)))
    figures = analyse(train, np.tile(test_labels, draws), before, after, seed=seed)
    answer = verdict(entries, reference[0], recommended).replace(
        "where the embedding's best is", "against the embedding's"
    )
    labelled = "1 label" if shots == 1 else f"{shots} labels"
    gains = (right(recommended, chosen.judge) - base).mean(axis=1)
    return Comparison(
        verdict=f"{labelled} a class: {answer[0].lower()}{answer[1:]}",
        entries=tuple(entries),
        reference=reference[0],
        free=FREE,
        chosen=recommended,
        classes=figures.classes,
        analysis=figures,
        predictor=next(
            (trained.predictor for trained, _ in runs if trained.entry(recommended).combination == chosen.combination)
        ),
        settings={
            **known,
            "test_rows": len(test_labels),
            "shots": shots,
            "draws": draws,
            "intervals": "bootstrap over test rows of each row's mean over the draws",
        },
        notes=(
            *reasons(entries, reference[0], recommended),
            *choices[0].notes,
            *(() if groups is None else groups_note(apart, "draws")),
            f"{shots} labelled rows of each class, drawn {draws} times; each draw chooses from its own rows: "
            f"{_chosen_in_words(runs, recommended)}",
            f"gain in each draw: {', '.join(f'{100 * gain + 0.0:+.1f}' for gain in gains)}; intervals are of other "
            "test rows, not of other draws",
        ),
    )


def _own_judge(trained: Trained, name: str, judge: str, runs: list[tuple[Trained, Guesses]]) -> str:
    """The judge whose figures stand under `judge` in one draw: of what is chosen, the one that this draw chose."""
    return trained.entry(name).judge if name in CHOICES and judge == _judge(runs, name) else judge


def _judge(runs: list[tuple[Trained, Guesses]], name: str) -> str:
    return _most(trained.entry(name).judge for trained, _ in runs)


def _chosen_in_words(runs: list[tuple[Trained, Guesses]], name: str) -> str:
    """What each draw chose: "layers with LDA (3 of 5), the embedding with LDA (2 of 5)"."""
    titles = []
    for trained, _ in runs:
        entry, outcome = trained.entry(name), trained.outcomes[name][trained.entry(name).judge]
        titles.append(pair_of(entry.features, word_of(outcome.predictor)))
    return ", ".join(f"{title} ({times} of {len(runs)})" for title, times in Counter(titles).most_common())


def _most(values: Iterable[_T]) -> _T:
    """The most frequent value, the first of equals."""
    listed = list(values)
    return max(listed, key=listed.count)  # max keeps the first
