"""Several importance matrices of one model as one: what a single run over all of their texts would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration import floor
from gemmaq.calibration.imatrix import Entry, Imatrix
from gemmaq.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Sums = tuple[NDArray[np.float64], NDArray[np.float64]]


def merged(parts: Sequence[Imatrix]) -> Imatrix:
    """Add up sums, counts and sequences, and unite the names of the texts.

    Matrices in the older form count sequences. These are taken to be as long as those of the others, as llama-imatrix
    does; if the length is unknown of all of them, that of the result is too.

    Raises:
        InputError: they are of different models.
    """
    if len(parts) == 1:
        return parts[0]
    size = next((part.chunk_size for part in parts if part.chunk_size), 0)
    names = dict.fromkeys(name for part in parts for name in part.entries)
    entries = {name: _entry(name, parts, size) for name in names}
    warnings = list(floor.warnings(entries))
    lacking = [name for name in names if any(name not in part.entries for part in parts)]
    if lacking:
        warnings.append(f"{len(lacking)} of {len(names)} entries are not in all of the files, {lacking[0]} for example")
    tokens = sum(part.chunks * (part.chunk_size or size or 1) for part in parts)
    return Imatrix(
        entries,
        tuple(dict.fromkeys(dataset for part in parts for dataset in part.datasets)),
        tokens // (size or 1),
        size,
        tuple(warnings),
    )


def _entry(name: str, parts: Sequence[Imatrix], size: int) -> Entry:
    """Sum of the entries of a name; experts have their share of the others again if they had it in a part."""
    own, blended = list[tuple[Imatrix, Entry]](), False
    for part in parts:
        entry = part.entries.get(name)
        if entry is not None:
            own.append((part, entry))
            blended = blended or entry.seen is not None
    matrices = max(len(entry.counts) for _, entry in own)
    found = [_spread(floor.taken_out(entry), matrices, 1 if part.chunk_size else size or 1) for part, entry in own]
    if len({sums.shape for sums, _ in found}) > 1 or len({len(counts) for _, counts in found}) > 1:
        sizes = " and ".join(dict.fromkeys(str(entry.sums.size) for _, entry in own))
        raise InputError(
            f"importance matrices of different models cannot be merged: {name} has {sizes} columns",
            "name files of one model",
        )
    sums, counts = (np.sum(values, axis=0) for values in zip(*found, strict=True))
    if blended:
        return floor.entry(sums, counts.astype(np.int64))
    return Entry(sums.astype(np.float32).reshape(-1), counts.astype(np.float32))


def _spread(sums: Sums, matrices: int, times: int) -> Sums:
    """Sums and counts for every matrix where one count is for all, times the tokens that were counted as one."""
    values, counts = sums
    if len(counts) == 1 and values.size % matrices == 0:
        values, counts = values.reshape(matrices, -1), np.repeat(counts, matrices)
    return values * times, counts * times
