"""What `sporeprint segment` does: every kind of features, on the same training patches and the same test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.load import load_backbone
from sporeprint.data.limits import Limits
from sporeprint.data.scenes.scenes import Scenes
from sporeprint.errors import DamagedStore, RecipeError
from sporeprint.evaluate.result import plain
from sporeprint.evaluate.segmentation import Tally, difference, segmentation
from sporeprint.features.dense.support import least
from sporeprint.features.failures import Failures
from sporeprint.features.fungi import Fungi
from sporeprint.features.progress import Progress, silent
from sporeprint.run.estimate import Estimate
from sporeprint.run.output_folder import MASKS, RESULT, SegmentFolder
from sporeprint.run.segment_plan import COPIES, EMBEDDING, LAYERS, WITHOUT_GRADIENTS, Kind, Plan, Run
from sporeprint.run.segment_predictions import Answers, Pictures, TrainingGroup, label_images, warn_of_known
from sporeprint.run.segment_scenes import (
    TRAIN,
    failures_json,
    look_at_test,
    look_at_training,
    refuse_other_names,
    rows_of,
)
from sporeprint.segment.labeller import Labeller
from sporeprint.segment.training import Survey, Truth, fill
from sporeprint.store.atomic import damaged

BY_TRAINING, BY_TEST = "picked by the training images", "picked as the best on these very test images"


@dataclass(frozen=True)
class Way:
    """Options of a run that decide no number. masks: whether they are written. sheet: images on it."""

    device: str | None = None
    dtype: str = "auto"
    batch_size: int = 8
    workers: int = 1
    max_failures: float = 0.01
    limits: Limits = Limits()
    masks: bool = False
    sheet: int = 8
    keep_bank: bool = False
    trust_remote_code: bool = False
    allow_random: bool = False


@dataclass(frozen=True)
class Segmentation:
    """The result of all runs. runs: in the plan's order, as in result.json. names: of the classes."""

    plan: Plan
    kinds: list[Kind]
    runs: list[dict[str, Any]]
    names: list[str]
    truth: Truth | None
    about: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**self.about, "runs": self.runs}


def segment(
    train: Scenes,
    test: Scenes,
    out: str | Path,
    plan: Plan,
    backbone: str | Backbone,
    way: Way = Way(),
    truth: bool = True,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda what: None,
) -> Segmentation:
    """Fit on TRAIN and label TEST, once for each fraction and seed of the plan; finished runs in `out` are kept.

    truth: whether TEST has masks; without them predictions are written, and nothing is compared. Raises RecipeError,
    SourceError, BackboneError, TooManyFailures, SampleError, StoreMismatch, StoreError.
    """
    network = backbone
    if isinstance(network, str):
        network = load_backbone(
            network, device=way.device, trust_remote_code=way.trust_remote_code, allow_random=way.allow_random
        )
    plan.check(network)
    if not truth and len(plan.runs()) > 1:
        raise RecipeError("without masks of TEST nothing is compared: leave out --fractions and --seeds, or give one")
    names = train.names or test.names
    ignore = plan.ignored(names)
    labels = Truth(plan.classes_of(train, ignore, names, way.limits), ignore)
    if truth:
        refuse_other_names(train, test, labels)
    return _Segment(train, test, plan, network, way, labels, truth, progress, say).all(out)


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
        with SegmentFolder(out, self.described(), self.way.keep_bank) as folder:
            missing = [run for run in runs if run.key not in folder.runs]
            if len(missing) < len(runs):
                self.say(f"{len(runs) - len(missing)} of {len(runs)} runs are in '{out}' already")
            if runs[0] not in missing and self.way.masks and not (folder.out / MASKS).exists():
                self.say("no masks are written: those are of the first run, which is done; give another --out for them")
            surveyed, reasons = self.surveyed() if missing else (Survey(), {})
            for run in missing:
                folder.add(run.key, self.run(run, surveyed, reasons, folder, run == runs[0]))
            done = [self.checked(folder, run) for run in runs]
        if warning := warn_of_known(done):
            self.say(warning)
        about = {"classes": names, "void": list(self.truth.ignore), "plan": folder.plan}
        return Segmentation(self.plan, self.plan.kinds(), done, names, self.truth if self.compared else None, about)

    def checked(self, folder: SegmentFolder, run: Run) -> dict[str, Any]:
        """A finished run. Raises DamagedStore where its result is of another run, or lacks a kind of features."""
        result = folder.runs[run.key]
        whole = all(
            kind.name in result["kinds"] and (not self.compared or "result" in result["kinds"][kind.name])
            for kind in self.plan.kinds()
        )
        if not whole or (result["fraction"], result["seed"]) != (str(run.fraction), run.seed):
            raise DamagedStore(damaged(folder.out / RESULT, f"does not hold the result of {run}"))
        return result

    def names(self) -> list[str]:
        given = self.train.names or self.test.names or []
        known = dict(enumerate(given))
        return [known.get(label) or str(label) for label in range(self.truth.classes)]

    def described(self) -> dict[str, Any]:
        """The plan with all that decides a run's numbers."""
        fungi = self.fungi(self.plan.seed, False)
        layers = self.plan.layers_of(self.network) if any(LAYERS in kind.name for kind in self.plan.kinds()) else ()
        truth = {"classes": self.truth.classes, "ignore": list(self.truth.ignore), "compared": self.compared}
        data = {"train": self.train.digest(), "test": self.test.digest()}
        return plain({**self.plan.to_json(), "layers": list(layers), **truth, **data, "resolved": fungi.describe()})

    def fungi(self, seed: int, copies: bool) -> Fungi:
        recipe = self.plan.recipe(self.network, seed, copies, self.way.dtype)
        way = self.way
        return Fungi(recipe, self.network, batch_size=way.batch_size, workers=way.workers, limits=way.limits)

    def surveyed(self) -> tuple[Survey, dict[str, str]]:
        """The survey of TRAIN, and the reasons why masks of TEST cannot be used."""
        most = self.way.max_failures
        features = [self.fungi(self.plan.seed, copies).patches for copies in self.copies()]
        surveyed = look_at_training(self.train, features, self.truth, most, self.progress, self.say)
        if not self.compared:
            return surveyed, {}
        total, workers, limits = len(self.test), self.way.workers, self.way.limits
        return surveyed, look_at_test(self.test, total, self.truth, workers, limits, most, self.progress)

    def copies(self) -> list[bool]:
        """Whether features are made without copies, with them, or both."""
        return sorted({kind.copies for kind in self.plan.kinds()})

    def run(
        self, run: Run, surveyed: Survey, reasons: Mapping[str, str], folder: SegmentFolder, first: bool
    ) -> dict[str, Any]:
        count = max(1, round(run.fraction * len(surveyed.counts)))
        drawn = least(run.seed, surveyed.counts, count)
        groups = self.fitted(run, drawn, folder)
        pictures = None
        if first:
            palette = self.train.palette(self.way.limits) or self.test.palette(self.way.limits)
            pictures = Pictures(folder, self.way.masks or not self.compared, self.way.sheet, len(self.test), self.truth)
            pictures.take(palette, self.names())
        try:
            sampling = replace(self.plan.sampling, seed=run.seed)
            failed = fill(
                groups, self.train, drawn, self.truth, surveyed.counts, sampling, self.way.batch_size, self.way.workers,
                self.watched(f"training images ({run})", count),
            )  # fmt: skip
            failures = Failures(self.way.max_failures, len(self.train), surveyed.failures)
            with rows_of(TRAIN):
                failures.extend(failed)
            truth, total = self.truth if self.compared else None, len(self.test)
            answers = label_images(
                groups, self.test, total, truth, self.way.batch_size, self.way.workers, self.way.max_failures,
                lambda number, *shown: None if pictures is None else pictures.add(number, *shown),
                self.watched(f"test images ({run})", total),
            )  # fmt: skip
        finally:
            for group in groups:
                for labeller in group.labellers.values():
                    labeller.abandon()
            folder.drop_banks()
        kinds = self.judged(groups, answers)
        if pictures is not None:
            pictures.draw(
                {name: (kind.get("result") or {}).get("value") for name, kind in kinds.items()}, *best_of(kinds)
            )
        return {
            "fraction": str(run.fraction),
            "seed": run.seed,
            "training_images": count,
            "test_images": answers.images,
            "test_images_in_training": answers.known,
            "kinds": kinds,
            "failures": failures_json(failures.rows, answers.failures, reasons),
        }

    def watched(self, what: str, total: int) -> Callable[[int, int], None]:
        """What follows the work on images, and says how long it takes."""
        estimate = Estimate(what, total, self.say)
        estimate(0)

        def follow(done: int, total: int) -> None:
            self.progress(what, done, total)
            estimate(done)

        return follow

    def fitted(self, run: Run, drawn: Sequence[str], folder: SegmentFolder) -> list[TrainingGroup]:
        """The engines, fitted on the images drawn, with a bank for each kind of features."""
        groups = []
        for copies in self.copies():
            features = self.fungi(run.seed, copies).patches
            fitting = set(drawn[: features.engine.settings.fit_images])
            rows = [("", scene.image) for scene in self.train if scene.id in fitting]
            self.say(f"fitting on {len(rows)} images ({run}{', copies' if copies else ''}) ...")
            blocks = features.fit(rows)
            group = TrainingGroup(features)
            for kind in self.plan.kinds():
                if kind.copies == copies:
                    group.labellers[kind.name] = Labeller(
                        kind.combination.fit(blocks), self.truth.classes, self.plan.sampling.patches,
                        self.plan.voting, folder.bank(run.slug, kind.name), self.names(), run.seed,
                    )  # fmt: skip
            groups.append(group)
        return groups

    def judged(self, groups: Sequence[TrainingGroup], answers: Answers) -> dict[str, Any]:
        kinds: dict[str, Any] = {}
        tallies = {name: counts.tally() for name, counts in answers.counts.items()}
        for kind in self.plan.kinds():
            labeller = next(group.labellers[kind.name] for group in groups if kind.name in group.labellers)
            assert labeller.chosen is not None
            result = {
                "passes": self.plan.passes(kind),
                "width": labeller.width,
                "patches": len(labeller),
                "chosen": asdict(labeller.chosen),
            }
            if self.compared:
                result["result"] = segmentation(tallies[kind.name], self.names()).to_json()
                gain = difference(tallies[EMBEDDING], tallies[kind.name]) if kind.name != EMBEDDING else None
                result["gain"] = None if gain is None else gain.to_json()
                result["by_gradients"] = by_gradients(kind, self.plan.kinds(), tallies)
            kinds[kind.name] = plain(result)
        return kinds


def by_gradients(kind: Kind, kinds: Sequence[Kind], tallies: Mapping[str, Tally]) -> dict[str, Any] | None:
    """The gain over the same features without gradients; None where these are not among the kinds."""
    prefix = COPIES if kind.copies else ""
    other = prefix + WITHOUT_GRADIENTS.get(kind.name.removeprefix(prefix), "")
    if not kind.gradients or other not in {known.name for known in kinds}:
        return None
    return difference(tallies[other], tallies[kind.name]).to_json()


def best_of(kinds: Mapping[str, Any]) -> tuple[str | None, str]:
    """The best kind other than the embedding, and how that is known; None where there is no other.

    "auto" picks it by the training images; otherwise the test images do. The last kind where neither has a figure.
    """
    others = {name: result for name, result in kinds.items() if name != EMBEDDING}
    scores, how = {name: result["chosen"]["score"] for name, result in others.items()}, BY_TRAINING
    if None in scores.values():
        scores = {name: (result.get("result") or {}).get("value") for name, result in others.items()}
        how = BY_TEST
    if not scores or None in scores.values():
        return next(reversed(scores), None), ""
    return max(scores, key=lambda name: scores[name]), how


def shown_runs(segmented: Segmentation) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(fraction, its runs) in order."""
    for fraction in segmented.plan.fractions:
        yield str(fraction), [run for run in segmented.runs if run["fraction"] == str(fraction)]
