"""The standard table: embedding, gradients, the paper's assembly, and the controls that cost no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sporeprint.evaluate.choice.joined_features import passes_of
from sporeprint.evaluate.knn import knn
from sporeprint.evaluate.result import Result
from sporeprint.features.blocks import Blocks, family
from sporeprint.features.combine import Combination
from sporeprint.features.whiten import Axes

WHITE_RANK = 150  # dimensions of a whitened block, the lower end of METHOD's; not chosen on any test set


@dataclass(frozen=True)
class Candidate:
    """One way to make features: a name for people and a combination.

    clip: whiten to the narrowest block's width, silently, where that is less; else a block of less is warned of.
    """

    name: str
    combination: Combination
    clip: bool = False


@dataclass(frozen=True)
class Entry:
    """A candidate with its price and its accuracies: `results` by k as asked for. whitened: {block: dimensions}."""

    name: str
    blocks: tuple[str, ...]
    width: int
    passes: int
    results: dict[str, Any]
    whitened: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        results = {k: result.to_json() for k, result in self.results.items()}
        return {**self.__dict__, "blocks": list(self.blocks), "results": results}


def standard_candidates(names: Sequence[str], rows: int, size: int | None = None) -> list[Candidate]:
    """The candidates that these blocks allow. rows: of the training set. size: of the paper's PCA."""
    of = {kind: tuple(name for name in names if family(name) == kind) for kind in ("layers", "views", "gradients")}
    embedding, layers, views, gradients = ("embedding",), of["layers"], of["views"], of["gradients"]
    white = max(1, min(WHITE_RANK, rows - 1))
    made = [Candidate("embedding", Combination(embedding))]
    made += [Candidate(f"{name} alone", Combination((name,))) for name in gradients]
    made += [Candidate(f"embedding + {name}", Combination((*embedding, name))) for name in gradients]
    if gradients:
        paper = embedding + gradients
        made += [Candidate("all gradients", Combination(gradients))] if len(gradients) > 1 else []
        made += [Candidate("paper: embedding + all gradients", Combination(paper))] if len(gradients) > 1 else []
        made += [Candidate(f"paper, PCA {size}", Combination(paper, size=size))] if size is not None else []
    made.append(Candidate("control: embedding, white", Combination(embedding, whiten=white), clip=True))
    for name in views:
        made.append(Candidate(f"control: {name}", Combination((name,))))
        made.append(Candidate(f"control: {name}, white", Combination((name,), whiten=white), clip=True))
    for title, blocks in (
        ("control: embedding + views, white", embedding + views if views else ()),
        ("control: layers, white", layers),
        ("control: layers + views, white", layers + views if layers and views else ()),
        ("embedding + gradients, white", embedding + gradients if gradients else ()),
        ("layers + gradients, white", layers + gradients if layers and gradients else ()),
        ("layers + views + gradients, white", layers + views + gradients if layers and views and gradients else ()),
    ):
        if blocks:
            made.append(Candidate(title, Combination(blocks, whiten=white), clip=True))
    return made


def evaluate(
    candidate: Candidate,
    train: Blocks,
    labels: Any,
    test: Blocks,
    test_labels: Any,
    info: Mapping[str, Mapping[str, Any]],
    ks: Sequence[int | Literal["auto"]] = (20, "auto"),
    judge: Callable[..., Result] = knn,
    whiteners: dict[tuple[str, Any], Axes] | None = None,
    **options: Any,
) -> Entry:
    """Fit a candidate on the training blocks, classify the test rows. info: each block's set of views and its size.

    judge: `knn`, or `multilabel` where labels are lists; options: its own. whiteners: as of `Combination.fit`.
    """
    combination = candidate.combination
    if candidate.clip and isinstance(combination.whiten, int):
        narrowest = min(train[name].shape[1] for name in combination.members(train))
        combination = replace(combination, whiten=min(combination.whiten, narrowest))
    combiner = combination.fit(train, whiteners)
    features, test_features = combiner.transform(train), combiner.transform(test)
    results = {str(k): judge(features, labels, test_features, test_labels, k=k, **options) for k in ks}
    whitened = {name: len(axes.variance) for name, axes in combiner.whiteners.items()}
    passes = passes_of(combiner.names, info)
    return Entry(candidate.name, combiner.names, combiner.width, passes, results, whitened)
