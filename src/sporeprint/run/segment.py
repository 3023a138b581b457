"""Segmentation by retrieval: every kind of features on the same training patches, on the same test images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.backbones.base import Backbone
from sporeprint.backbones.load import load_backbone
from sporeprint.data.scenes import Scenes, find_classes
from sporeprint.dense.labeller import Chosen, Labeller, Maps
from sporeprint.dense.support import least
from sporeprint.dense.training import Group, Survey, Truth, batched, fill, read_ahead, survey
from sporeprint.errors import RecipeError, RowFailure, SampleError
from sporeprint.evaluate.result import plain
from sporeprint.evaluate.segmentation import Tally, confusion, difference, segmentation
from sporeprint.fungi import Fungi
from sporeprint.reading import refuse_too_many
from sporeprint.run.segment_files import Folder
from sporeprint.run.segment_pictures import Pictures
from sporeprint.run.segment_plan import EMBEDDING, Kind, Plan, Run

Progress = Callable[[str, int, int], None]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Way:
    """How a run goes about it; none of these decides a number. masks: written; sheet: images on it."""

    device: str | None = None
    dtype: str = "auto"
    batch_size: int = 8
    workers: int = 1
    max_failures: float = 0.01
    masks: bool = False
    sheet: int = 8
    keep_bank: bool = False


@dataclass(frozen=True)
class Segmentation:
    """runs: by key, in order, as in result.json. names: of the classes. test: images asked about."""

    plan: Plan
    kinds: list[Kind]
    runs: list[dict[str, Any]]
    names: list[str]
    truth: Truth | None
    about: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**self.about, "runs": self.runs}


@dataclass
class _Counts:
    """The confusions of one kind, image by image."""

    rows: list[NDArray[np.int64]] = field(default_factory=list)
    total: NDArray[np.int64] | int = 0

    def add(self, matrix: NDArray[np.int64]) -> None:
        self.rows.append(np.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)]))
        self.total = self.total + matrix

    def tally(self) -> Tally:
        hits, truth, predicted = np.stack(self.rows, axis=1)
        return Tally(hits, truth, predicted, np.asarray(self.total))


def segment(
    train: Scenes,
    test: Scenes,
    out: str | Path,
    plan: Plan,
    backbone: str | Backbone,
    way: Way = Way(),
    truth: bool = True,
    progress: Progress = lambda what, done, total: None,
    say: Callable[[str], None] = lambda what: None,
) -> Segmentation:
    """Fit on TRAIN, ask about TEST, once for each fraction and seed of the plan; finished runs in `out` are kept.

    truth: whether TEST has masks; without them predictions are written, and nothing is compared. Raises RecipeError,
    SourceError, BackboneError, TooManyFailures, SampleError, StoreMismatch, StoreError.
    """
    network = load_backbone(backbone, device=way.device) if isinstance(backbone, str) else backbone
    plan.check(network)
    if not truth and len(plan.runs()) > 1:
        raise RecipeError("without masks of TEST nothing is compared: leave out --fractions and --seeds, or give one")
    ignore = plan.ignored(train.names)
    classes = plan.classes or find_classes(train, ignore)
    return _Segment(train, test, plan, network, way, Truth(classes, ignore), truth, progress, say).all(out)


@dataclass
class _Segment:
    train: Scenes
    test: Scenes
    plan: Plan
    network: Backbone
    way: Way
    truth: Truth
    compared: bool
    progress: Progress
    say: Callable[[str], None]

    def all(self, out: str | Path) -> Segmentation:
        names = self.names()
        self.say(
            f"{self.truth.classes} classes: {', '.join(names)}; void: "
            f"{', '.join(map(str, self.truth.ignore)) or 'none'}"
        )
        runs = self.plan.runs()
        with Folder(out, self.described(), self.way.keep_bank) as folder:
            missing = [run for run in runs if run.key not in folder.runs]
            if len(missing) < len(runs):
                self.say(f"{len(runs) - len(missing)} of {len(runs)} runs are in '{out}' already")
            found = self.surveyed() if missing else Survey()
            for run in missing:
                folder.add(run.key, self.run(run, found, folder, run == runs[0]))
            done = [folder.runs[run.key] for run in runs]
        about = {"classes": names, "void": list(self.truth.ignore), "plan": folder.plan}
        return Segmentation(self.plan, self.plan.kinds(), done, names, self.truth if self.compared else None, about)

    def names(self) -> list[str]:
        given = self.train.names or self.test.names or []
        return [*given, *map(str, range(len(given), self.truth.classes))][: self.truth.classes]

    def described(self) -> dict[str, Any]:
        """Everything that decides a run's numbers."""
        fungi = self.fungi(self.plan.seed, False)
        layers = self.plan.layers_of(self.network) if any("layers" in one.name for one in self.plan.kinds()) else ()
        truth = {"classes": self.truth.classes, "ignore": list(self.truth.ignore), "compared": self.compared}
        data = {"train": self.train.digest(), "test": self.test.digest()}
        return plain({**self.plan.to_json(), "layers": list(layers), **truth, **data, "resolved": fungi.describe()})

    def fungi(self, seed: int, copies: bool) -> Fungi:
        recipe = self.plan.recipe(self.network, seed, copies, self.way.dtype)
        return Fungi(recipe, self.network, batch_size=self.way.batch_size, workers=self.way.workers)

    def surveyed(self) -> Survey:
        features = self.fungi(self.plan.seed, False).patches
        most = self.way.max_failures, len(self.train)
        return survey(
            self.train, features, self.truth, most, lambda done, all: self.progress("training masks", done, all)
        )

    def run(self, run: Run, found: Survey, folder: Folder, first: bool) -> dict[str, Any]:
        count = max(1, round(run.fraction * len(found.counts)))
        drawn = least(run.seed, found.counts, count)
        groups = self.fitted(run, drawn, folder)
        pictures = None
        if first:
            palette = self.train.palette or self.test.palette
            pictures = Pictures(folder, self.way.masks or not self.compared, self.way.sheet, len(self.test), self.truth)
            pictures.take(palette, self.names())
        try:
            sampling = replace(self.plan.sampling, seed=run.seed)
            what = f"training images ({run})"
            failed = fill(
                groups, self.train, drawn, self.truth, found.counts, sampling, self.way.batch_size, self.way.workers,
                lambda done, all: self.progress(what, done, all),
            )  # fmt: skip
            refuse_too_many([*found.failures, *failed], self.way.max_failures, len(self.train))
            counts, unread, seen = self.asked(run, groups, pictures)
        finally:
            for group in groups:
                for labeller in group.labellers.values():
                    labeller.abandon()
            folder.drop_banks()
        kinds = self.judged(groups, counts)
        if pictures is not None:
            pictures.draw({name: (one.get("result") or {}).get("value") for name, one in kinds.items()}, best_of(kinds))
        return {
            "fraction": str(run.fraction),
            "seed": run.seed,
            "training_images": count,
            "test_images": seen,
            "kinds": kinds,
            "failures": [one.to_json() for one in (*found.failures, *failed, *unread)],
        }

    def fitted(self, run: Run, drawn: Sequence[str], folder: Folder) -> list[Group]:
        """The engines, fitted on the images drawn, with a bank for each kind of features."""
        groups = []
        for copies in sorted({one.copies for one in self.plan.kinds()}):
            features = self.fungi(run.seed, copies).patches
            fitting = set(drawn[: features.engine.settings.fit_images])
            rows = [("", scene.image) for scene in self.train if scene.id in fitting]
            self.say(f"fitting on {len(rows)} images ({run}{', copies' if copies else ''}) ...")
            blocks = features.fit(rows)
            group = Group(features)
            for kind in self.plan.kinds():
                if kind.copies == copies:
                    group.labellers[kind.name] = Labeller(
                        kind.combination.fit(blocks), self.truth.classes, self.plan.sampling.patches,
                        self.plan.voting, folder.bank(run.slug, kind.name), self.names(), run.seed,
                    )  # fmt: skip
            groups.append(group)
        return groups

    def asked(
        self, run: Run, groups: Sequence[Group], pictures: Pictures | None
    ) -> tuple[dict[str, _Counts], list[RowFailure], int]:
        """Confusions by kind, the test images that have none, and how many have."""
        counts = {one.name: _Counts() for one in self.plan.kinds()}
        failures: list[RowFailure] = []
        truth, total, done = self.truth if self.compared else None, len(self.test), 0
        for batch in batched(read_ahead(self.test, truth, self.way.workers), self.way.batch_size):
            images = [read[0] for _, read in batch if not isinstance(read, SampleError)]
            made = [iter(group.maps(images, [group.content(one) for one in images])) for group in groups]
            for scene, read in batch:
                maps = [] if isinstance(read, SampleError) else [next(one) for one in made]
                try:
                    if isinstance(read, SampleError):
                        raise read
                    predicted = _predicted(groups, maps, (read[0].height, read[0].width))
                    for name, labels in predicted.items() if truth is not None else ():
                        counts[name].add(confusion(read[1], labels, self.truth.classes, self.truth.ignore))
                    if pictures is not None:
                        pictures.add(done, scene.id, read[0], read[1], predicted)
                except SampleError as error:
                    failures.append(RowFailure(scene.id, str(error)))
                    refuse_too_many(failures, self.way.max_failures, total)
                done += 1
                self.progress(f"test images ({run})", done, total)
        if len(failures) == total:
            raise SampleError(f"none of {total} test images can be read ({failures[0].id}: {failures[0].reason})")
        return counts, failures, total - len(failures)

    def judged(self, groups: Sequence[Group], counts: Mapping[str, _Counts]) -> dict[str, Any]:
        kinds: dict[str, Any] = {}
        tallies = {name: one.tally() for name, one in counts.items() if self.compared}
        for kind in self.plan.kinds():
            labeller = next(group.labellers[kind.name] for group in groups if kind.name in group.labellers)
            assert labeller.chosen is not None
            said = {
                "passes": self.plan.passes(kind),
                "width": labeller.width,
                "patches": len(labeller),
                "chosen": asdict(labeller.chosen),
            }
            if self.compared:
                said["result"] = segmentation(tallies[kind.name], self.names()).to_json()
                gain = difference(tallies[EMBEDDING], tallies[kind.name]) if kind.name != EMBEDDING else None
                said["gain"] = None if gain is None else gain.to_json()
            kinds[kind.name] = plain(said)
        return kinds


def _predicted(groups: Sequence[Group], maps: Sequence[Maps | SampleError], size: tuple[int, int]) -> dict[str, Labels]:
    found: dict[str, Labels] = {}
    for group, one in zip(groups, maps, strict=True):
        if isinstance(one, SampleError):
            raise one
        found |= {name: labeller.labels(one, size) for name, labeller in group.labellers.items()}
    return found


def best_of(kinds: Mapping[str, Any]) -> str | None:
    """The kind beside the embedding that does best: on the training images where "auto" asked them, else on the test
    images; the last where neither is known, None where there is no other."""
    others = {name: one for name, one in kinds.items() if name != EMBEDDING}
    if not others:
        return None

    def score(name: str) -> float:
        one = others[name]
        chosen, result = Chosen(**one["chosen"]), one.get("result")
        return chosen.score if chosen.score is not None else result["value"] if result else -math.inf

    best = max(map(score, others))
    return [name for name in others if score(name) == best][0 if best > -math.inf else -1]


def shown_runs(found: Segmentation) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(fraction, its runs) in order."""
    for fraction in found.plan.fractions:
        yield str(fraction), [one for one in found.runs if one["fraction"] == str(fraction)]
