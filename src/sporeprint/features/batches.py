"""Decode rows ahead of the backbone: in threads, in order, in batches bounded by rows and by bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.data.prefetch import ahead
from sporeprint.errors import RowFailure, SampleError, TooManyFailures

BATCH_BYTES = 96 * 2**20  # a batch closes early where samples are large
Decoded = tuple[str, Any]  # (id, prepared sample, or the SampleError that says why not)


def decode(inputs: Inputs, row: tuple[str, Any]) -> Decoded:
    """(id, sample) to (id, prepared sample), or to (id, why not). Without an id, the content's digest is the id."""
    row_id, sample = row
    try:
        loaded = inputs.load(sample)
        return row_id or inputs.digest(loaded), inputs.prepare(loaded)
    except SampleError as error:
        return row_id, error


def decoded_batches(
    inputs: Inputs, rows: Iterable[tuple[str, Any]], batch_size: int, workers: int
) -> Iterator[list[Decoded]]:
    """Batches of at most `batch_size` rows; where they end changes no number."""
    batch: list[Decoded] = []
    size = 0
    for decoded in ahead(partial(decode, inputs), rows, workers):
        batch.append(decoded)
        size += inputs.bulk(decoded[1]) if not isinstance(decoded[1], SampleError) else 0
        if len(batch) >= batch_size or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def as_rows(samples: Any, ids: Sequence[str] | None) -> list[tuple[str, Any]]:
    """(id, sample) pairs; without ids "" stands for the digest of the content."""
    if isinstance(samples, (str, bytes, Path)) or not hasattr(samples, "__iter__"):
        raise SampleError(f"samples is a {type(samples).__name__}; expected a list of samples (for one, give [sample])")
    samples = list(samples)
    if ids is None:
        return [("", sample) for sample in samples]
    ids = [str(one) for one in ids]
    if len(ids) != len(samples):
        raise SampleError(f"{len(ids)} ids for {len(samples)} samples; expected one id a sample")
    if strange := [one for one in ids if one.encode(errors="replace").decode() != one]:
        raise SampleError(f"id {strange[0]!r} is not Unicode text; ids seed the views, so they need a spelling")
    return list(zip(ids, samples, strict=True))


def name_rows(
    inputs: Inputs, rows: Iterable[tuple[str, Any]], batch_size: int, workers: int
) -> Iterator[tuple[str, Any]]:
    """Rows with their ids filled in from their content, where they have none; unreadable ones are left out."""
    unnamed = []
    for row in rows:
        if row[0]:
            yield row
        else:
            unnamed.append(row[1])
    start = 0
    for batch in decoded_batches(inputs, (("", sample) for sample in unnamed), batch_size, workers):
        for (row_id, ready), sample in zip(batch, unnamed[start:], strict=False):
            if not isinstance(ready, SampleError):
                yield row_id, sample
        start += len(batch)


def allowed_failures(fraction: float, rows: int) -> int:
    """How many of so many rows may fail: the fraction, but at least one row, unless the fraction is 0."""
    return max(1, math.floor(fraction * rows)) if fraction > 0 else 0


def refuse_too_many(failures: Sequence[RowFailure], fraction: float, rows: int) -> None:
    """Raises TooManyFailures, which names the rows, when more failed than are allowed."""
    allowed = allowed_failures(fraction, rows)
    if len(failures) > allowed:
        shown = "; ".join(f"{failure.id}: {failure.reason}" for failure in failures[:5])
        raise TooManyFailures(
            f"{len(failures)} rows of {rows} cannot be read, {allowed} may ({shown}). Mend or remove them, or allow "
            "more with max_failures (--max-failures), a fraction of the rows",
            failures,
        )
