"""Score by the revisited Oxford and Paris protocol (Radenović et al., CVPR 2018, arXiv 1803.11285)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.ground_truth import load_ground_truth
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.retrieve import check_ks, rankings
from sporeprint.predictors.checks import features_of

# Difficulty: the lists that count as relevant, and those that are junk, removed from the ranking (section 3 there).
DIFFICULTIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class RevisitedResult(Result):
    """value: mAP of the medium difficulty. By difficulty ("easy", "medium", "hard"), as fractions: mean_precision, mAP;
    precision_at, {k: mP@k}; NaN where no query has a relevant image of that difficulty.

    queries: how many count, by difficulty; the others have nothing relevant there and are in no figure, as in the
    official code. database_rows: ranked for each query. distractors: those beyond the ground truth's. query_images:
    rows given that were left out since they are queries.
    """

    mean_precision: dict[str, float] = field(default_factory=dict)
    precision_at: dict[str, dict[int, float]] = field(default_factory=dict)
    queries: dict[str, int] = field(default_factory=dict)
    database_rows: int = 0
    distractors: int = 0
    query_images: int = 0

    def __str__(self) -> str:
        figures = [f"{name} {value:.1%}" for name, value in self.mean_precision.items()]
        figures += [f"medium mP@{k} {value:.1%}" for k, value in self.precision_at["medium"].items()]
        return f"mAP {', '.join(figures)} ({self.queries['medium']} queries, {self.database_rows} images)"


@quiet_floats
def revisited(
    queries: ArrayLike,
    database: ArrayLike,
    ground_truth: str | os.PathLike[str] | Mapping[str, Any],
    query_names: Sequence[str] | None = None,
    database_names: Sequence[str] | None = None,
    ks: Sequence[int] = (1, 5, 10),
    metric: Literal["euclidean", "cosine"] = "euclidean",
) -> RevisitedResult:
    """Rank the database [N, D] for each query [M, D] and score it as the official code does.

    ground_truth: as `load_ground_truth` takes it. The features of a query are of its image cropped to "bbx". Without
    names, rows are in the order of qimlist and imlist; names (folders and .jpg, .jpeg or .png are ignored) put them
    there. Named database rows that the ground truth lacks are distractors (R1M), except the queries' own images,
    which the protocol keeps out of the database, so that all images of a folder can be given.

    Junk is removed from the ranking. AP is the area under precision over recall by the trapezoidal rule: each relevant
    image adds the mean of the precisions just before it (1 at the first rank) and at it, over the number of relevant
    ones. It is not the AP of `retrieve`. P@k is over the first min(k, rank of the last relevant image). As in the
    official code, an image listed as relevant and as junk is relevant but does not set back those behind it, and one
    listed twice as relevant counts twice among those to find.
    Equal distances go by the order of imlist, then of the distractors. Memory as in `retrieve`.
    Raises SampleError for rows with NaN, names and counts that do not match, and what is wrong with the ground truth.

    Examples
    --------
    >>> from sporeprint import revisited
    >>> truth = {
    ...     "qimlist": ["tower"],
    ...     "imlist": ["front", "side", "fog", "bridge"],
    ...     "gnd": [{"easy": [0], "hard": [1], "junk": [2]}],
    ... }
    >>> result = revisited([[0.0]], [[0.1], [0.5], [0.2], [0.9]], truth)
    >>> result.mean_precision
    {'easy': 1.0, 'medium': 1.0, 'hard': 1.0}
    """
    depths = check_ks(ks)
    truth = load_ground_truth(ground_truth)
    query_features, database_features = features_of(queries, "query"), features_of(database, "database")
    query_rows = _listed_rows(truth["qimlist"], query_names, len(query_features), "query")
    images = _listed_rows(truth["imlist"], database_names, len(database_features), "database")
    if query_names is not None and len(query_features) > len(query_rows):
        raise SampleError(
            f"{len(query_features)} query rows, but the ground truth has {len(query_rows)} queries; give theirs alone"
        )
    others = np.setdiff1d(np.arange(len(database_features)), images)
    stems = {_stem(name) for name in truth["qimlist"]}
    own = [row for row in others if _stem(database_names[row]) in stems] if database_names is not None else []
    others = np.setdiff1d(others, own)
    rows = np.concatenate([images, others]).astype(np.intp)
    precisions: dict[str, list[float]] = {name: [] for name in DIFFICULTIES}
    within: dict[str, list[list[float]]] = {name: [] for name in DIFFICULTIES}
    places = np.empty(len(rows), np.intp)  # of each image in a query's ranking
    for query, order in rankings(_take_rows(query_features, query_rows), _take_rows(database_features, rows), metric):
        places[order] = np.arange(len(order))
        entry = truth["gnd"][query]
        for name, (relevant, junk) in DIFFICULTIES.items():
            images_to_find = [image for part in relevant for image in entry[part]]
            if images_to_find:
                ranks = ranks_without_junk(places, images_to_find, [image for part in junk for image in entry[part]])
                precisions[name].append(average_precision(ranks, len(images_to_find)))
                within[name].append([precision_at(ranks, k) for k in depths])
    return RevisitedResult(
        value=_mean(precisions["medium"]),
        settings={
            "metric": metric,
            "ks": list(depths),
            "ground_truth": None if isinstance(ground_truth, Mapping) else Path(ground_truth).name,
        },
        mean_precision={name: _mean(values) for name, values in precisions.items()},
        precision_at={
            name: {k: _mean([values[at] for values in rows_of]) for at, k in enumerate(depths)}
            for name, rows_of in within.items()
        },
        queries={name: len(values) for name, values in precisions.items()},
        database_rows=len(rows),
        distractors=len(others),
        query_images=len(own),
    )


def ranks_without_junk(places: NDArray[np.intp], relevant: Sequence[int], junk: Sequence[int]) -> NDArray[np.intp]:
    """Return ranks from 0, ascending, of the relevant images without the junk. places: [N], rank of each image."""
    ranks = np.sort(places[np.unique(relevant)])
    junk_ranks = np.sort(places[np.unique(np.asarray(junk, dtype=np.intp))])
    return ranks - np.searchsorted(junk_ranks, ranks)


def average_precision(ranks: NDArray[np.intp], relevant: int) -> float:
    """Return the official area under the curve. ranks: from 0, ascending. relevant: the number of images to find."""
    before, earlier = np.maximum(ranks, 1), np.arange(len(ranks))
    precision_before = np.where(ranks > 0, earlier / before, 1.0)
    return float((precision_before + (earlier + 1) / (ranks + 1)).sum() / (2 * relevant))


def precision_at(ranks: NDArray[np.intp], k: int) -> float:
    """Return the official precision at k, which does not go beyond the last relevant image."""
    depth = min(k, int(ranks[-1]) + 1)
    return int((ranks < depth).sum()) / depth


def _listed_rows(listed: Sequence[str], names: Sequence[str] | None, rows: int, which: str) -> NDArray[np.intp]:
    """Return the row of each image of the ground truth, in its order. Raises SampleError for no row, or two."""
    if names is None:
        if rows != len(listed):
            raise SampleError(
                f"{rows} {which} rows for {len(listed)} images in the ground truth; expected one each, or {which}_names"
            )
        return np.arange(rows)
    if len(names) != rows:
        raise SampleError(f"{len(names)} {which} names for {rows} {which} rows; expected one name a row")
    rows_of: dict[str, list[int]] = {_stem(name): [] for name in listed}
    for row, name in enumerate(names):
        if (stem := _stem(name)) in rows_of:
            rows_of[stem].append(row)
    if absent := [name for name in listed if not rows_of[_stem(name)]]:
        raise SampleError(
            f"{len(absent)} of {len(listed)} images of the ground truth have no {which} row: "
            f"{', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}; expected all of them in {which}_names"
        )
    if twice := [name for name in listed if len(rows_of[_stem(name)]) > 1]:
        raise SampleError(f"{which}_names has {twice[0]} {len(rows_of[_stem(twice[0])])} times; expected once")
    return np.array([rows_of[_stem(name)][0] for name in listed])


def _stem(name: str) -> str:
    path = PurePosixPath(str(name).replace("\\", "/"))
    return path.stem if path.suffix.lower() in _SUFFIXES else path.name


def _take_rows(features: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """Return features[rows], without a copy where that is all of them in order."""
    return features if np.array_equal(rows, np.arange(len(features))) else features[rows]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
