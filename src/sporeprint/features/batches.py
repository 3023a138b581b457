"""Decode rows ahead of the backbone: in threads, in order, in batches bounded by rows and by bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.data.columns import as_list, is_source
from sporeprint.data.limits import Limits
from sporeprint.data.prefetch import ahead
from sporeprint.data.rows import ReadAgain
from sporeprint.errors import SampleError
from sporeprint.features.failures import Failures

BATCH_BYTES = 96 * 2**20  # a batch closes early where samples are large
Decoded = tuple[str, Any]  # (id, prepared sample, or the SampleError that says why not)


class Batch(NamedTuple):
    """A batch holds rows that were decoded together, and names for people: the given id, or "row 7"."""

    rows: list[Decoded]
    names: list[str]


def decode(inputs: Inputs, row: tuple[str, Any], limits: Limits = Limits()) -> Decoded:
    """Decode (id, sample) to (id, prepared sample), or to (id, why not). A missing id becomes the content's digest."""
    row_id, sample = row
    try:
        loaded = inputs.load(sample.read() if isinstance(sample, ReadAgain) else sample, limits)
        return row_id or inputs.digest(loaded), inputs.prepare(loaded)
    except SampleError as error:
        return row_id, error


def decoded_batches(
    inputs: Inputs,
    rows: Iterable[tuple[str, Any]],
    batch_size: int,
    workers: int,
    first: int = 0,
    limits: Limits = Limits(),
) -> Iterator[Batch]:
    """Yield batches of at most `batch_size` rows; where they end changes no number. first: the first row's number."""
    batch, size = Batch([], []), 0
    decoded = ahead(lambda row: (row[0], decode(inputs, row, limits)), rows, workers)
    for number, (given_id, (row_id, ready)) in enumerate(decoded, first):
        batch.rows.append((row_id, ready))
        batch.names.append(given_id or f"row {number}")
        size += inputs.bulk(ready) if not isinstance(ready, SampleError) else 0
        if len(batch.rows) >= batch_size or size >= BATCH_BYTES:
            yield batch
            batch, size = Batch([], []), 0
    if batch.rows:
        yield batch


def separate(rows: Sequence[Decoded]) -> tuple[dict[int, Decoded], dict[int, str]]:
    """Separate the rows that can be read from the reasons why the others cannot, both by position."""
    readable = {at: row for at, row in enumerate(rows) if not isinstance(row[1], SampleError)}
    return readable, {at: str(row[1]) for at, row in enumerate(rows) if at not in readable}


def known_modality(inputs: Inputs) -> str | None:
    """Return the modality of samples; None where a class of the user's own loads them, from what it likes."""
    return inputs.modality if type(inputs).load.__module__.startswith("sporeprint.") else None


def as_rows(samples: Any, ids: Any, inputs: Inputs | None = None) -> list[tuple[str, Any]]:
    """Return (id, sample) pairs; without ids "" stands for the digest of the content, a source's rows have their own.

    samples, ids: as `as_list` takes them, or rows that `open_source` opened. inputs: what loads the samples.
    Raises SampleError.
    """
    if is_source(samples):
        named_rows = [(row.id, row.sample) for row in samples.rows()]
        samples, ids = (
            [sample for _, sample in named_rows],
            ids if ids is not None else [name for name, _ in named_rows],
        )
    else:
        samples = as_list(samples, modality=known_modality(inputs) if inputs else None)
    if not samples:
        raise SampleError("samples is empty; give at least one sample")
    if ids is None:
        return [("", sample) for sample in samples]
    given_ids = as_list(ids, "ids")
    if None in given_ids:
        raise SampleError(f"row {given_ids.index(None)} has no id; give one to each sample, or no ids")
    ids = [str(row_id) for row_id in given_ids]
    if len(ids) != len(samples):
        raise SampleError(f"{len(ids)} ids for {len(samples)} samples; expected one id a sample")
    if strange := [row_id for row_id in ids if row_id.encode(errors="replace").decode() != row_id]:
        raise SampleError(f"id {strange[0]!r} is not Unicode text; ids seed the views, so they need a spelling")
    return list(zip(ids, samples, strict=True))


def name_rows(
    inputs: Inputs,
    rows: Iterable[tuple[str, Any]],
    batch_size: int,
    workers: int,
    failures: Failures | None = None,
    limits: Limits = Limits(),
) -> Iterator[tuple[str, Any]]:
    """Yield rows with ids, those without one named by the digest of their content.

    Unreadable ones are left out, and counted where there are `failures`. Raises TooManyFailures.
    """
    unnamed = []
    for number, row in enumerate(rows):
        if row[0]:
            yield row
        else:
            unnamed.append((number, row[1]))
    remaining = iter(unnamed)
    samples = (("", sample) for _, sample in unnamed)
    for batch in decoded_batches(inputs, samples, batch_size, workers, limits=limits):
        for (row_id, ready), (number, sample) in zip(batch.rows, remaining, strict=False):
            if not isinstance(ready, SampleError):
                yield row_id, sample
            elif failures is not None:
                failures.add(f"row {number}", ready)
