"""Label maps against their truth: mIoU over a data set, what each class has, and how sure a difference is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.result import Result
from sporeprint.values import check_count

_CHUNK = 2**20  # numbers drawn at a time: 8 MB


@dataclass(frozen=True, kw_only=True)
class SegmentationResult(Result):
    """value: mIoU, the mean of `iou` over the classes that occur in the truth; a fraction.

    iou: [C], NaN for classes absent from the truth. accuracy: share of the labelled pixels that are right.
    mean_class_accuracy: mean over the classes of the truth of the share of their pixels that are right.
    confusion: int64 [C, C] of all images together, rows truth, columns predicted. pixels: labelled ones.
    Of several runs (`over_runs`) the figures are means over them, confusion their sum, images and pixels those of one
    run, and values each run's mIoU, whose standard deviation (n - 1) is `spread`.
    """

    iou: NDArray[np.float64] = field(compare=False)
    names: tuple[str, ...]
    accuracy: float
    mean_class_accuracy: float
    images: int
    pixels: int
    confusion: NDArray[np.int64] = field(compare=False)
    values: tuple[float, ...] = ()

    @property
    def per_class(self) -> dict[str, float]:
        """{name: IoU} of the classes that occur in the truth."""
        return {name: float(one) for name, one in zip(self.names, self.iou, strict=True) if not math.isnan(one)}

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" (± {self.spread:.1%} over {len(self.values)} runs)"
        absent = len(self.names) - len(self.per_class)
        classes = f"{len(self.per_class)} classes" + (f" ({absent} absent left out)" if absent else "")
        return (
            f"mIoU {self.value:.1%}{spread} of {classes}, pixel accuracy {self.accuracy:.1%}, "
            f"mean class accuracy {self.mean_class_accuracy:.1%}, {self.images} images"
        )


@dataclass(frozen=True, eq=False)
class Tally:
    """What mIoU and its bootstrap need of N images: of 150 classes 3.6 kB an image, where confusions take 180.

    hits, truth, predicted: int64 [N, C], pixels of each class that are right, that are of it, that are said to be.
    total: int64 [C, C], the confusion of all images together.
    """

    hits: NDArray[np.int64]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    total: NDArray[np.int64]

    def by_image(self) -> NDArray[np.float64]:
        """mIoU [N] of each image by the classes of its own truth; NaN where it has no labelled pixel."""
        return _miou(self.hits, self.truth, self.predicted)


Confusions = Tally | Iterable[ArrayLike]  # of each image: [N, C, C], or a generator of [C, C]


def confusion(
    truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], classes: int, ignore: Sequence[int] = ()
) -> NDArray[np.int64]:
    """Pixels of one image by what they are (rows) and what was said (columns): [C, C].

    truth, predicted: [H, W], labels 0..C-1. ignore: labels of the truth that are void; those pixels are left out,
    whatever was said of them.
    Raises SampleError for maps of different sizes, labels that are not whole numbers, and labels beyond the classes.
    """
    check_count("classes", classes, error=SampleError)
    truth, predicted = _map(truth, "truth"), _map(predicted, "prediction")
    if truth.shape != predicted.shape:
        raise SampleError(
            f"the truth is {' x '.join(map(str, truth.shape))} pixels, the prediction "
            f"{' x '.join(map(str, predicted.shape))}; expected the same: enlarge the prediction to the truth's size"
        )
    labelled = ~np.isin(truth, list(ignore))
    rows, columns = truth[labelled].astype(np.int64), predicted[labelled].astype(np.int64)
    _check_labels(rows, classes, "the truth", "give it in ignore, if it is void")
    _check_labels(columns, classes, "the prediction", "every labelled pixel needs one of the classes")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


def tally(confusions: Confusions) -> Tally:
    """The counts of each image, from confusions [C, C] read one at a time: a generator of them is never held whole.

    Raises SampleError for no image, and for what is no [C, C] of counts, or of another C than the first.
    """
    if isinstance(confusions, Tally):
        return confusions
    total = np.zeros((0, 0), np.int64)
    counts = []
    for number, one in enumerate(confusions):
        matrix = np.asarray(one)
        wide = len(matrix) if number == 0 and matrix.ndim else len(total)
        if matrix.shape != (wide, wide) or not wide or matrix.dtype.kind not in "iu" or (matrix < 0).any():
            raise SampleError(
                f"confusion {number} has shape {matrix.shape} of {matrix.dtype}; expected counts [C, C], of the same C "
                "for every image: make it with confusion(truth, predicted, classes)"
            )
        total = matrix.astype(np.int64) + (total if number else 0)
        counts.append((matrix.diagonal().astype(np.int64), matrix.sum(1, np.int64), matrix.sum(0, np.int64)))
    if not counts:
        raise SampleError("there are no confusions; expected those of at least one image")
    hits, truth, predicted = map(np.stack, zip(*counts, strict=True))
    return Tally(hits, truth, predicted, total)


def segmentation(
    confusions: Confusions, names: Sequence[str] | None = None, settings: dict[str, Any] | None = None
) -> SegmentationResult:
    """mIoU of a data set: the confusions of its images are summed, then IoU = hits / (truth + predicted - hits).

    The mean is over the classes that occur in the truth, as scikit-learn's jaccard_score with labels=those. A class
    that only predictions have counts in no mean of its own (torchmetrics and mmseg give it IoU 0), but its pixels are
    missing from the classes that they belong to. So every method is averaged over the same classes: one stray pixel of
    an absent class of ten does not cost a tenth of mIoU. Where all classes occur in the truth all conventions agree.
    names: of the C classes, their numbers by default. Raises SampleError as `tally`, for names that do not match, and
    where no pixel of any image is labelled.
    """
    counts = tally(confusions)
    classes = len(counts.total)
    if names is not None and len(names) != classes:
        raise SampleError(f"{len(names)} names for {classes} classes; expected one name a class")
    hits, truth, predicted = counts.hits.sum(0), counts.truth.sum(0), counts.predicted.sum(0)
    if not truth.any():
        raise SampleError(f"no pixel of {len(counts.truth)} images is labelled; look at `ignore`, and at the masks")
    there = truth > 0
    return SegmentationResult(
        value=float(_miou(hits, truth, predicted)),
        settings=dict(settings or {}),
        iou=_iou(hits, truth, predicted),
        names=tuple(names) if names is not None else tuple(map(str, range(classes))),
        accuracy=float(hits.sum() / truth.sum()),
        mean_class_accuracy=float((hits[there] / truth[there]).mean()),
        images=len(counts.truth),
        pixels=int(truth.sum()),
        confusion=counts.total,
    )


def difference(a: Confusions, b: Confusions, draws: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """mIoU(b) - mIoU(a) of two predictions of the same images, by the percentiles of a paired bootstrap over images.

    Images are drawn with replacement, both confusions of an image together, for pixels of one image go together. A
    class that no image of a draw has is left out of that draw's mean. Images without a labelled pixel are not drawn.
    One image gives no interval (NaN). Raises SampleError for confusions that are not of the same truths, in order.
    """
    check_count("draws", draws, error=SampleError)
    if not 0 < level < 1:
        raise SampleError(f"level={level!r}; expected a fraction between 0 and 1, both excluded")
    first, second = tally(a), tally(b)
    if not np.array_equal(first.truth, second.truth):
        raise SampleError(
            f"confusions of {first.truth.shape} and {second.truth.shape} [images, classes] have different truths; "
            "expected two predictions of the same images, in the same order, at the same size"
        )
    value = segmentation(second).value - segmentation(first).value
    kept = first.truth.any(axis=1)
    images, classes = int(kept.sum()), first.truth.shape[1]
    if images < 2:
        return Interval(value, math.nan, math.nan, level)
    counts = np.stack([first.hits, first.predicted, second.hits, second.predicted, first.truth], axis=1)[kept]
    flat = counts.reshape(images, -1).astype(np.float64)  # a product of floats is quick, and exact below 2 ** 53 pixels
    rng = np.random.default_rng(seed)
    some = max(1, _CHUNK // max(flat.shape))
    found = []
    for at in range(0, draws, some):
        times = rng.multinomial(images, np.full(images, 1 / images), min(some, draws - at))
        hits_a, said_a, hits_b, said_b, truth = np.moveaxis((times @ flat).reshape(-1, 5, classes), 1, 0)
        found.append(_miou(hits_b, truth, said_b) - _miou(hits_a, truth, said_a))
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)


def over_runs(results: Sequence[SegmentationResult]) -> SegmentationResult:
    """Mean and standard deviation (n - 1, None of one) over runs that differ in their seed, on the same truth.

    settings: those that all runs share. Raises SampleError for no run, or runs of different classes or images.
    """
    if not results:
        raise SampleError("there are no results; expected those of at least one run")
    first = results[0]
    for number, one in enumerate(results[1:], 1):
        same = (one.names, one.images) == (first.names, first.images)
        if not same or not np.array_equal(one.confusion.sum(1), first.confusion.sum(1)):
            raise SampleError(f"run {number} is of another truth than run 0; expected the same images and classes")
    values = tuple(one.value for one in results)
    shared = [pair for pair in first.settings.items() if all(pair in one.settings.items() for one in results)]
    return SegmentationResult(
        value=float(np.mean(values)),
        spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        settings=dict(shared),
        iou=np.mean([one.iou for one in results], axis=0),
        names=first.names,
        accuracy=float(np.mean([one.accuracy for one in results])),
        mean_class_accuracy=float(np.mean([one.mean_class_accuracy for one in results])),
        images=first.images,
        pixels=first.pixels,
        confusion=np.sum([one.confusion for one in results], axis=0),
        values=values,
    )


def _iou(hits: NDArray[Any], truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """[..., C], NaN for classes without a pixel of the truth."""
    return np.divide(hits, truth + predicted - hits, out=np.full(hits.shape, np.nan), where=truth > 0)


def _miou(hits: NDArray[Any], truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """[...], over the classes that the truth has; NaN where it has none."""
    there = (truth > 0).sum(axis=-1)
    total = np.nansum(_iou(hits, truth, predicted), axis=-1)
    return np.divide(total, there, out=np.full(there.shape, np.nan), where=there > 0)


def _map(labels: ArrayLike, which: str) -> NDArray[Any]:
    array = np.asarray(labels)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "biu":
        raise SampleError(
            f"the {which} has shape {array.shape} of {array.dtype}; expected whole numbers [height, width]: of scores "
            "take the argmax first"
        )
    return array


def _check_labels(labels: NDArray[np.int64], classes: int, which: str, advice: str) -> None:
    strange = np.unique(labels[(labels < 0) | (labels >= classes)])
    if len(strange):
        raise SampleError(f"{which} has the labels {strange[:5].tolist()}; expected 0 to {classes - 1}: {advice}")
