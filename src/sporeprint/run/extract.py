"""Extract a source into a store on one machine: resumable, shard by shard."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import torch

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.precision import as_fitted
from sporeprint.data.assumptions import Assumptions
from sporeprint.data.limits import Limits
from sporeprint.data.look_alikes import look_alike_note
from sporeprint.data.rows import ReadAgain, Row, Source, digest_like
from sporeprint.errors import BackboneError, RecipeError, Removed, SourceError, StoreError, StoreMismatch, warn
from sporeprint.features import saved
from sporeprint.features.batches import decoded_batches
from sporeprint.features.failures import Failures, first_reasons
from sporeprint.features.from_store import check_network, read_state
from sporeprint.features.fungi import Fungi
from sporeprint.features.gathered import Gathered
from sporeprint.features.progress import Progress, silent
from sporeprint.features.recipe import Recipe
from sporeprint.objectives import paper
from sporeprint.run.estimate import Estimate
from sporeprint.run.preset_costs import is_default, preset_costs
from sporeprint.store.plan import read_plan
from sporeprint.store.reader import Store
from sporeprint.store.shards import DTYPES, plan_path
from sporeprint.store.writer import StoreWriter
from sporeprint.values import check_choice, to_json

log = logging.getLogger(__name__)

LARGE_BYTES = 2 * 2**20
LONG_S = 2.0  # what takes less is not announced


@dataclass(frozen=True)
class Settings:
    """Settings of a run, which decide no number, except `dtype`, the precision on disk."""

    device: str | None = None
    batch_size: int = 32
    workers: int = 1
    shard_rows: int = 256
    dtype: str = "float32"
    max_failures: float = 0.01
    limits: Limits = Limits()
    trust_remote_code: bool = False
    allow_random: bool = False

    def __post_init__(self) -> None:
        check_choice("dtype on disk", self.dtype, DTYPES)
        for name, least in (("batch_size", 1), ("shard_rows", 1), ("workers", 0), ("max_failures", 0)):
            if not getattr(self, name) >= least:
                raise RecipeError(f"{name}={getattr(self, name)}; expected at least {least}")

    def fungi(self) -> dict[str, Any]:
        """Return the part that `Fungi` takes."""
        names = ("device", "batch_size", "workers", "limits", "trust_remote_code", "allow_random")
        return {name: getattr(self, name) for name in names}


def extract(
    source: Source,
    out: str | Path,
    recipe: Recipe | None = None,
    fit_from: str | Path | None = None,
    backbone: Backbone | str | None = None,
    settings: Settings = Settings(),
    progress: Progress = silent,
) -> Store:
    """Compute every row's blocks into the store `out`; an interrupted run goes on with the same call.

    fit_from: a store, or a folder that `Fungi.save` wrote, whose heads, negatives and projection are used: what a test
    set needs. Without it they are drawn from `source` by `recipe`.
    backbone: a network of your own; or a name instead of the recipe's or the fit's: where its weights are now.
    Raises StoreMismatch where `out` has another plan, TooManyFailures, SourceError, BackboneError, DamagedStore.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sporeprint import KL, Recipe
    >>> from sporeprint.data.rows import ListSource  # or open_source("photos")
    >>> from sporeprint.run.extract import extract
    >>> images, folder = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8), tempfile.mkdtemp()
    >>> train = extract(ListSource(images[:4]), folder + "/train", Recipe(backbone="tiny", objectives=[KL()], layers=0))
    >>> test = extract(ListSource(images[4:]), folder + "/test", fit_from=folder + "/train")
    >>> len(train), len(test), test.block_names
    (4, 2, ['embedding', 'kl'])
    """
    if fit_from is None:
        fungi = _make_fungi(recipe or Recipe(), backbone, settings)
        _keep_precision(fungi, out)
        fitted = None
    else:
        fungi, fitted = _fitted_fungi(fit_from, recipe, backbone, settings)
    plan = _make_plan(fungi, source, fitted, Path(out))
    try:
        writer = StoreWriter(out, plan, dtype=settings.dtype, shard_rows=settings.shard_rows)
    except StoreMismatch as error:
        _refuse_removed(Path(out))
        stored = _recorded(Path(out), "recipe").get("objectives")
        if is_default(fungi) and stored == to_json(paper(fungi.network.modality)):
            raise StoreMismatch(
                f"{error}\nIn earlier versions the default was the paper's: --preset paper goes on with it."
            ) from None
        raise
    with writer:
        if writer.complete:
            log.info("%s is complete already", out)
            return Store.open(out)
        if fitted is None and is_default(fungi):
            log.info(preset_costs(fungi))
        try:
            _load_or_draw_state(writer, fungi, source, fitted is not None, progress)
            return _write_shards(writer, fungi, source, settings, progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_kept(writer, len(source))) from None


def _fitted_fungi(
    fit_from: str | Path, recipe: Recipe | None, backbone: Backbone | str | None, settings: Settings
) -> tuple[Fungi, str]:
    read = read_state(fit_from)
    body, _ = saved.unpack_parts(read, str(fit_from))
    theirs = Recipe.from_json(body["recipe"])
    if recipe is not None:
        ours = replace(recipe, backbone=theirs.backbone).blocks_json()  # its weights are compared, not its name
        differing = [key for key, value in theirs.blocks_json().items() if ours[key] != value]
        if differing:
            key = differing[0]
            raise StoreMismatch(
                f"{fit_from} was fitted with {key}={theirs.blocks_json()[key]}, this run asks for {ours[key]}"
                f"{' (and differs in ' + ', '.join(differing[1:]) + ')' if differing[1:] else ''}; leave the recipe's "
                "options out, --fit-from brings its own"
            )
        backbone = backbone or recipe.backbone
    if backbone is None:
        give = "in Python, extract(..., backbone=Backbone(module, ...)) takes it"
        check_network(theirs, body["resolved"], str(fit_from), give)
    fungi = _make_fungi(theirs if backbone is None else replace(theirs, backbone=None), backbone, settings)
    try:
        fungi.restore(read, str(fit_from))
    except BackboneError as error:
        if backbone is not None:
            raise
        raise BackboneError(f"{error} ({fit_from} names it so; if it is elsewhere now, give --backbone)") from error
    return fungi, body["tensors_sha256"]


def _make_fungi(recipe: Recipe, backbone: Backbone | str | None, settings: Settings) -> Fungi:
    if isinstance(backbone, str):
        recipe, backbone = replace(recipe, backbone=backbone), None
    return Fungi(recipe, backbone=backbone, **settings.fungi())


def _refuse_removed(out: Path) -> None:
    """Raise Removed where the store was made with something that this version does not have any more."""
    try:
        Recipe.from_json(_recorded(out, "recipe"))
    except Removed as error:
        raise Removed(f"'{out}' was made by an earlier version: {error}") from None
    except RecipeError:
        return


def _keep_precision(fungi: Fungi, out: str | Path) -> None:
    """Resume dtype "auto" as it began in the store `out`, which may have been on another machine."""
    recipe, resolved = _recorded(Path(out), "recipe"), _recorded(Path(out), "resolved")
    if recipe.get("dtype") == fungi.recipe.dtype == "auto":  # type: ignore[union-attr]
        network = fungi.network
        fungi.engine.autocast = as_fitted("auto", resolved.get("dtype", "auto"), network.dtype, network.device)


def _recorded(out: Path, part: str) -> dict[str, Any]:
    """Return a part of the plan of the store `out`; {} where there is none."""
    try:
        recorded = read_plan(out)["plan"].get(part) if plan_path(out).exists() else None
    except OSError:
        return {}  # the writer says why
    return recorded if isinstance(recorded, dict) else {}


def _make_plan(fungi: Fungi, source: Source, fitted: str | None, out: Path) -> dict[str, Any]:
    """Return all that determines the contents. A backbone is known by its weights, not its place (`NOT_COMPARED`)."""
    left_out = ("backbone", "views")  # the objectives hold what the views come to
    recipe = {key: value for key, value in fungi.recipe.blocks_json().items() if key not in left_out}  # type: ignore[union-attr]
    recipe["objectives"] = to_json(fungi.engine.objectives)  # as they are for this modality
    resolved = fungi.describe()
    with _said_if_long(f"reading the source ({len(source)} rows) for its digest ..."):
        digest = digest_like(source, _recorded(out, "source").get("digest"))
    return {
        "recipe": recipe,
        "resolved": resolved,
        "source": {**source.describe(), "digest": digest},
        "fit": {"from": "this source" if fitted is None else fitted},
    }


@contextmanager
def _said_if_long(what: str) -> Iterator[None]:
    """Log what is being done once it has taken `LONG_S`."""
    timer = threading.Timer(LONG_S, log.info, (what,))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _finished(writer: StoreWriter) -> int:
    """Return the number of rows, with the failed ones, of the shards that are written."""
    return sum(shard.rows + len(shard.failures) for shard in writer.done.values())


def _kept(writer: StoreWriter, total: int) -> str:
    """Say what an interrupted run leaves."""
    if finished := _finished(writer):
        return f"{finished} of {total} rows are kept in '{writer.folder}'; the same command goes on after them"
    return f"no row is stored in '{writer.folder}' yet; the same command starts again"


def _load_or_draw_state(writer: StoreWriter, fungi: Fungi, source: Source, fitted: bool, progress: Progress) -> None:
    """Use the fitted state on disk: drawn once, then read back by every later run."""
    packed = {name: writer.read_state(name) for name in (saved.TENSORS_NAME, saved.JSON_NAME)}
    if all(data is not None for data in packed.values()):
        fungi.restore(lambda name: packed[name] or b"", f"{writer.folder}/state")
        return
    seconds = None
    if not fitted and any(objective.negatives for objective in fungi.engine.objectives):
        started = time.perf_counter()
        with _said_if_long(f"reading the source ({len(source)} rows) to draw negatives ..."):
            fungi.draw_negatives(_light_rows(source), progress)
        seconds = round(time.perf_counter() - started, 3)
    for name, data in fungi.pack().items():
        writer.write_state(name, data, seconds if name == saved.JSON_NAME else None)


def _write_shards(writer: StoreWriter, fungi: Fungi, source: Source, settings: Settings, progress: Progress) -> Store:
    total, inputs = len(source), fungi.network.preprocess
    finished = _finished(writer)
    progress("rows", finished, total)
    estimate = _estimate(fungi, total)
    estimate(finished)
    failures = Failures(settings.max_failures, total)
    failures.extend(failure for shard in writer.done.values() for failure in shard.failures)
    assumptions = Assumptions()
    for index, rows in _missing_shards(source, settings.shard_rows, set(writer.done)):
        spent, first = dict(fungi.seconds), index * settings.shard_rows
        size = min(settings.shard_rows, total - first)
        shard_failures = Failures(1.0, size)  # counted below, once the shard is written: what was computed stays
        gathered, read = Gathered(inputs, shard_failures, assumptions), list[Row]()
        samples = _samples(rows, read)
        for batch in decoded_batches(inputs, samples, settings.batch_size, settings.workers, first, settings.limits):
            gathered.add(batch, *fungi.compute(*batch))
            progress("rows", finished + gathered.seen, total)
            estimate(finished + gathered.seen)
        if gathered.seen < size:
            raise SourceError(f"the source has {first + gathered.seen} rows; it said {total}: was it changed?")
        allowed = len(failures.rows) + len(shard_failures.rows) <= failures.allowed
        if gathered.ids or allowed:
            writer.write_shard(
                index,
                gathered.ids if read[0].id else _distinct_ids(gathered.ids, writer.ids),
                [read[at].label for at in gathered.positions],
                gathered.computed(),
                shard_failures.rows,
                {name: seconds - spent.get(name, 0.0) for name, seconds in fungi.seconds.items()},
                truncated=len(gathered.truncated),
            )
        failures.extend(shard_failures.rows)
        finished += size
    widths = next((shard.blocks for shard in writer.done.values() if shard.rows), None)
    if widths is None:
        reasons = first_reasons(failures.rows, 5)
        raise StoreError(f"none of the {total} rows of this source has features ({reasons}); fix or replace them")
    store = writer.commit(
        # In the order of the recipe: a shard's record that was read back has its blocks in alphabetical order.
        blocks={name: {"dim": widths[name], **info} for name, info in fungi.block_info().items() if name in widths},
        label_names=source.label_names,
        cost=_cost(writer, fungi),
    )
    alike = look_alike_note(source.label_names or writer.labels())
    for sentence in (*assumptions.sentences(), *([alike] if alike else [])):  # last: a warning may be made an error
        warn(sentence)
    return store


def _estimate(fungi: Fungi, total: int) -> Estimate:
    info = fungi.block_info()
    passes = round(sum({block["views"]: block["passes"] for block in info.values()}.values()), 1)
    noun = {"image": "images", "text": "texts", "audio": "sounds"}[fungi.network.modality]
    return Estimate(noun, total, log.info, f", {passes:g} {'pass' if passes == 1 else 'passes'}")


def _distinct_ids(digests: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Return digests of contents as ids; one that is taken has "-2", "-3" ... added. Its views are the same."""
    used, ids = set(taken), []
    for digest in digests:
        names = chain([digest], (f"{digest}-{number}" for number in count(2)))
        ids.append(next(name for name in names if name not in used))
        used.add(ids[-1])
    return ids


def _light_rows(source: Source) -> Iterator[tuple[str, Any]]:
    """Yield id and sample of every row: hundreds are held at a time, so a large one is read again when it is used."""
    for number, row in enumerate(source.rows()):
        large = _bytes(row.sample) > LARGE_BYTES
        yield row.id, ReadAgain(source, number) if large else row.sample


def _bytes(sample: Any) -> int:
    """Return about how many bytes the sample of a table takes; 0 for other kinds."""
    if isinstance(sample, dict):
        return sum(map(_bytes, sample.values()))
    return len(sample) * (32 if isinstance(sample, list) else 1) if isinstance(sample, (bytes, str, list)) else 0


def _samples(rows: Iterable[Row], read: list[Row]) -> Iterator[tuple[str, Any]]:
    """Yield id and sample of each row, and note the row, without its sample, in `read`."""
    for row in rows:
        read.append(replace(row, sample=None))
        yield row.id, row.sample


def _missing_shards(source: Source, size: int, done: set[int]) -> Iterator[tuple[int, Iterable[Row]]]:
    """Yield (index, rows) of the shards that are not there yet. A shard is a fixed range of the source's rows."""
    total = -(-len(source) // size)
    missing = [index for index in range(total) if index not in done]
    if not missing:
        return
    rows = source.rows(start=missing[0] * size)
    for index in range(missing[0], total):
        shard = islice(rows, size)
        if index in done:
            deque(shard, maxlen=0)
        else:
            yield index, shard


def _cost(writer: StoreWriter, fungi: Fungi) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    for shard in writer.done.values():
        for name, spent in shard.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + spent
    seconds.pop("negatives", None)  # no shard's: they are drawn once, before
    if saved.JSON_NAME in writer.state_seconds:
        seconds["negatives"] = writer.state_seconds[saved.JSON_NAME]
    return {
        "seconds": {name: round(spent, 3) for name, spent in seconds.items()},
        "rows": sum(shard.rows for shard in writer.done.values()),
        "device": fungi.network.device.type,
        "threads": torch.get_num_threads(),
    }
