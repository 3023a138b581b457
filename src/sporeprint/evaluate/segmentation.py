"""Label maps are compared with their truth: mIoU over a data set, IoU per class, and the interval of a difference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.result import Result
from sporeprint.values import check_count

_CHUNK = 2**20  # numbers drawn at a time: 8 MB


@dataclass(frozen=True, kw_only=True)
class SegmentationResult(Result):
    """The value is mIoU, the mean of `iou` over the classes that occur in the truth; a fraction.

    iou: [C], NaN for classes absent from the truth. accuracy: share of the labelled pixels that are right.
    mean_class_accuracy: mean over the classes of the truth of the share of their pixels that are right.
    confusion: int64 [C, C] of all images together, rows truth, columns predicted. pixels: number of labelled pixels.
    With several runs (`over_runs`) figures are means, confusion is the sum, images and pixels are those of one run, and
    values has each run's mIoU, whose standard deviation (n - 1) is `spread`.
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
        return {name: float(iou) for name, iou in zip(self.names, self.iou, strict=True) if not math.isnan(iou)}

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
    """A tally is what mIoU and its bootstrap need of N images: 3.6 kB an image for 150 classes, not 180 kB.

    hits, truth, predicted: int64 [N, C], pixels of each class that are right, in the truth, in the prediction.
    total: int64 [C, C], the confusion of all images together.
    """

    hits: NDArray[np.int64]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    total: NDArray[np.int64]

    def by_image(self) -> NDArray[np.float64]:
        """Return the mIoU [N] of each image over the classes of its own truth; NaN without a labelled pixel."""
        return _miou(self.hits, self.truth, self.predicted)


Confusions = Tally | Iterable[ArrayLike]  # one per image: [N, C, C], or a generator of [C, C]


def confusion(
    truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], classes: int, ignore: Sequence[int] = ()
) -> NDArray[np.int64]:
    """Count the pixels of an image by truth (rows) and prediction (columns): [C, C].

    truth, predicted: [H, W], labels 0..C-1. ignore: void labels of the truth, whose pixels are left out whatever their
    prediction.
    Raises SampleError for maps of different sizes, labels that are not whole numbers, and labels beyond the classes.
    """
    check_count("classes", classes, error=SampleError)
    truth, predicted = _label_map(truth, "truth"), _label_map(predicted, "prediction")
    if truth.shape != predicted.shape:
        raise SampleError(
            f"the truth is {' x '.join(map(str, truth.shape))} pixels, the prediction "
            f"{' x '.join(map(str, predicted.shape))}; expected the same: enlarge the prediction to the truth's size"
        )
    labelled = ~np.isin(truth, list(ignore))
    rows, columns = truth[labelled].astype(np.int64), predicted[labelled].astype(np.int64)
    _check_labels(rows, classes, "the truth", "give a void label in ignore")
    _check_labels(columns, classes, "the prediction", "every labelled pixel needs one of the classes")
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes)


@quiet_floats
def tally(confusions: Confusions) -> Tally:
    """Count each image's pixels from confusions [C, C], read one at a time, so that a generator is never held whole.

    Raises SampleError for no image, and for anything but counts [C, C] with the C of the first.
    """
    if isinstance(confusions, Tally):
        return confusions
    total = np.zeros((0, 0), np.int64)
    counts = []
    for number, confusion_matrix in enumerate(confusions):
        matrix = np.asarray(confusion_matrix)
        size = len(matrix) if number == 0 and matrix.ndim else len(total)
        if matrix.shape != (size, size) or not size or matrix.dtype.kind not in "iu" or (matrix < 0).any():
            raise SampleError(
                f"confusion {number} has shape {matrix.shape} of {matrix.dtype}; expected counts [C, C], with the same "
                "C for every image: make it with confusion(truth, predicted, classes)"
            )
        total = matrix.astype(np.int64) + (total if number else 0)
        counts.append((matrix.diagonal().astype(np.int64), matrix.sum(1, np.int64), matrix.sum(0, np.int64)))
    if not counts:
        raise SampleError("there are no confusions; expected those of at least one image")
    hits, truth, predicted = map(np.stack, zip(*counts, strict=True))
    return Tally(hits, truth, predicted, total)


@quiet_floats
def segmentation(
    confusions: Confusions, names: Sequence[str] | None = None, settings: dict[str, Any] | None = None
) -> SegmentationResult:
    """Return the mIoU of a data set: its images' confusions are summed, then IoU = hits / (truth + predicted - hits).

    The mean is over the classes that occur in the truth, as in scikit-learn's jaccard_score with those labels. A class
    that occurs only in predictions has no term in the mean (torchmetrics and mmseg give it IoU 0), but its pixels are
    missing from the classes that they belong to. So every method is averaged over the same classes: a stray pixel of
    an absent class of ten does not cost a tenth of mIoU. Where all classes occur in the truth all conventions agree.
    names: of the C classes, by default their numbers. Raises SampleError as `tally` does, for names that do not match,
    and where no pixel of any image is labelled.
    """
    counts = tally(confusions)
    classes = len(counts.total)
    if names is not None and len(names) != classes:
        raise SampleError(f"{len(names)} names for {classes} classes; expected one name per class")
    hits, truth, predicted = counts.hits.sum(0), counts.truth.sum(0), counts.predicted.sum(0)
    if not truth.any():
        raise SampleError(f"no pixel of {len(counts.truth)} images is labelled; check `ignore` and the masks")
    present = truth > 0
    return SegmentationResult(
        value=float(_miou(hits, truth, predicted)),
        settings=dict(settings or {}),
        iou=_iou(hits, truth, predicted),
        names=tuple(names) if names is not None else tuple(map(str, range(classes))),
        accuracy=float(hits.sum() / truth.sum()),
        mean_class_accuracy=float((hits[present] / truth[present]).mean()),
        images=len(counts.truth),
        pixels=int(truth.sum()),
        confusion=counts.total,
    )


@quiet_floats
def difference(a: Confusions, b: Confusions, draws: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """Return mIoU(b) - mIoU(a) of two predictions of the same images, with a paired bootstrap interval over images.

    Images are drawn with replacement, both confusions of an image together, since pixels of an image are dependent. A
    class that no image of a draw has is left out of that draw's mean. Images without a labelled pixel are not drawn.
    A single image gives no interval (NaN). Raises SampleError for confusions of different truths, or in another order.
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
    labelled = first.truth.any(axis=1)
    images, classes = int(labelled.sum()), first.truth.shape[1]
    if images < 2:
        return Interval(value, math.nan, math.nan, level)
    counts = np.stack([first.hits, first.predicted, second.hits, second.predicted, first.truth], axis=1)[labelled]
    flat = counts.reshape(images, -1).astype(np.float64)  # a product of floats is fast, and exact below 2 ** 53 pixels
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // max(flat.shape))
    differences = []
    for at in range(0, draws, chunk):
        times = rng.multinomial(images, np.full(images, 1 / images), min(chunk, draws - at))
        hits_a, predicted_a, hits_b, predicted_b, truth = np.moveaxis((times @ flat).reshape(-1, 5, classes), 1, 0)
        differences.append(_miou(hits_b, truth, predicted_b) - _miou(hits_a, truth, predicted_a))
    low, high = np.quantile(np.concatenate(differences), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)


@quiet_floats
def over_runs(results: Sequence[SegmentationResult]) -> SegmentationResult:
    """Return the mean and standard deviation (n - 1, None of one run) over runs of different seeds on the same truth.

    settings: those that all runs share. Raises SampleError for no run, or runs of different classes or images.
    """
    if not results:
        raise SampleError("there are no results; expected those of at least one run")
    first = results[0]
    for number, run in enumerate(results[1:], 1):
        same = (run.names, run.images) == (first.names, first.images)
        if not same or not np.array_equal(run.confusion.sum(1), first.confusion.sum(1)):
            raise SampleError(f"run {number} has another truth than run 0; expected the same images and classes")
    values = tuple(run.value for run in results)
    shared = [pair for pair in first.settings.items() if all(pair in run.settings.items() for run in results)]
    return SegmentationResult(
        value=float(np.mean(values)),
        spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        settings=dict(shared),
        iou=np.mean([run.iou for run in results], axis=0),
        names=first.names,
        accuracy=float(np.mean([run.accuracy for run in results])),
        mean_class_accuracy=float(np.mean([run.mean_class_accuracy for run in results])),
        images=first.images,
        pixels=first.pixels,
        confusion=np.sum([run.confusion for run in results], axis=0),
        values=values,
    )


def _iou(hits: NDArray[Any], truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """Return IoU [..., C], NaN for classes without a pixel of the truth."""
    return np.divide(hits, truth + predicted - hits, out=np.full(hits.shape, np.nan), where=truth > 0)


def _miou(hits: NDArray[Any], truth: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """Return mIoU [...] over the classes that the truth has; NaN where it has none."""
    present = (truth > 0).sum(axis=-1)
    total = np.nansum(_iou(hits, truth, predicted), axis=-1)
    return np.divide(total, present, out=np.full(present.shape, np.nan), where=present > 0)


def _label_map(labels: ArrayLike, which: str) -> NDArray[Any]:
    array = np.asarray(labels)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "biu":
        raise SampleError(
            f"the {which} has shape {array.shape} of {array.dtype}; expected whole numbers [height, width]: take the "
            "argmax of scores first"
        )
    return array


def _check_labels(labels: NDArray[np.int64], classes: int, which: str, advice: str) -> None:
    unknown = np.unique(labels[(labels < 0) | (labels >= classes)])
    if len(unknown):
        raise SampleError(f"{which} has the labels {unknown[:5].tolist()}; expected 0 to {classes - 1}: {advice}")
