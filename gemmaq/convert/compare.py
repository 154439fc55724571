"""Tensors of an artifact and of its source, a slab at a time: how far they are from each other, and whether the one is
what gemmaq makes of the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.checkpoint import Tensor
from gemmaq.checkpoint.rows import read_rows, values_of
from gemmaq.containers import Writer
from gemmaq.convert.workers import run_all
from gemmaq.convert.write import SLAB_ELEMENTS, chosen
from gemmaq.encodings import Quantized, dequantize
from gemmaq.errors import InputError
from gemmaq.files.span import Reader
from gemmaq.models.families import kinds
from gemmaq.planning.plan import PlannedTensor
from gemmaq.progress import ProgressCallback

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8, Values


@dataclass(frozen=True, slots=True)
class Compared:
    """A tensor of the artifact and its source.

    Attributes:
        name: in the artifact.
        kind: its kind (`Place.kind`).
        layer: index of its decoder layer, None outside the layers.
        encoding: it is stored in.
        elements: weights.
        square_error: sum of the squares of its differences from the source.
        square: of the source's weights.
        differing: codes (of floats: weights) that are not what gemmaq makes of the source; None if there is no recipe
            to make them by.
        equal: whether all its bytes are; None likewise.
    """

    name: str
    kind: str
    layer: int | None
    encoding: str
    elements: int
    square_error: float
    square: float
    differing: int | None = None
    equal: bool | None = None

    @property
    def error(self) -> float:
        """Relative RMS error."""
        return relative(self.square_error, self.square)


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of the source and the same in the artifact, with what is to be made of it where that is known."""

    name: str
    source: Tensor
    made: Tensor
    planned: PlannedTensor | None = None
    container: Writer | None = None


@dataclass(frozen=True, slots=True)
class _Slab:
    """Rows `first` to `first + count` of a pair."""

    number: int
    pair: Pair
    first: int
    count: int

    @property
    def nbytes(self) -> int:
        """Source bytes of the rows."""
        return self.count * self.pair.source.row_bytes


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Bytes that a worker reads into, again and again."""

    source: bytearray = field(default_factory=bytearray)
    made: bytearray = field(default_factory=bytearray)
    solved: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class _Part:
    """Differences in some rows."""

    square_error: float
    square: float
    differing: int
    equal: bool


def relative(square_error: float, square: float) -> float:
    """Relative RMS error; 0 where there is no error, of a tensor of zeros too."""
    return math.sqrt(square_error / square) if square else (math.inf if square_error else 0.0)


def compare(pairs: Sequence[Pair], *, threads: int, progress: ProgressCallback) -> list[Compared]:
    """Compare every pair, in order; a worker holds a slab of rows at a time.

    Args:
        pairs: of tensors of the same shape.
        threads: number of workers.
        progress: called after every slab.

    Raises:
        InputError: the source cannot be read.
    """
    slabs = [_Slab(number, pair, first, count) for number, pair in enumerate(pairs) for first, count in _slabs(pair)]
    with Reader() as reader:
        reader.open([part.span for pair in pairs for tensor in _read(pair) for part in tensor.parts])
        found = run_all(
            lambda slab, buffers: _rows(slab, reader, buffers),
            slabs,
            buffers=_Buffers,
            threads=threads,
            task="comparing",
            progress=progress,
        )
    parts: list[list[_Part]] = [[] for _ in pairs]
    for slab, part in zip(slabs, found, strict=True):
        parts[slab.number].append(part)
    return [_compared(pair, some) for pair, some in zip(pairs, parts, strict=True)]


def _read(pair: Pair) -> list[Tensor]:
    """All tensors that are read for a pair."""
    solved = [pair.planned.solved] if pair.planned is not None and pair.planned.solved is not None else []
    return [pair.source, pair.made, *solved]


def _slabs(pair: Pair) -> Iterator[tuple[int, int]]:
    """First row and count of rows; a kernel whose axes are moved is taken whole."""
    source = pair.source
    whole = source.channels_last or pair.made.channels_last
    step = source.rows if whole else max(1, SLAB_ELEMENTS // source.columns)
    for first in range(0, source.rows, step):
        yield first, min(step, source.rows - first)


def _rows(slab: _Slab, reader: Reader, buffers: _Buffers) -> _Part:
    """Compare some rows."""
    pair, first, count = slab.pair, slab.first, slab.count
    stored = read_rows(pair.source, first, count, reader, buffers.source)
    values = values_of(pair.source, stored)
    weights = dequantize(pair.source.encoding, values)
    there = read_rows(pair.made, first, count, reader, buffers.made)
    differing, equal = 0, True
    planned, container = pair.planned, pair.container
    if planned is not None and container is not None:
        ready = read_rows(planned.solved, first, count, reader, buffers.solved) if planned.solved else stored
        if planned.copied:
            packed: tuple[U8, ...] = (ready[0],)
            wanted = values_of(planned.stored, ready)
        else:
            wanted = chosen(planned, values_of(planned.stored, ready) if planned.solved else values, weights)
            packed = container.pack(planned, wanted)
        equal = all(np.array_equal(a.reshape(-1), b.reshape(-1)) for a, b in zip(packed, there, strict=True))
    try:
        made = values_of(pair.made, there)
    except InputError:  # its arrays contradict each other
        return _Part(math.inf, 1.0, count * pair.source.columns, False)
    if not equal:
        differing = _differing(wanted, made)
    reference = _as_torch(weights, pair.source) + np.float32(pair.source.shift)
    distance = _as_torch(dequantize(pair.made.encoding, made), pair.made) + np.float32(pair.made.shift) - reference
    return _Part(_square(distance), _square(reference), differing, equal)


def _differing(a: Values, b: Values) -> int:
    """Codes or weights that are not the same."""
    first, second = (values.codes if isinstance(values, Quantized) else values for values in (a, b))
    return int(np.count_nonzero(first != second))


def _square(values: F32) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _as_torch(weights: F32, tensor: Tensor) -> F32:
    """Weights with their axes as the tensor's shape has them."""
    if not tensor.channels_last:
        return weights
    rows, channels, height, width = tensor.shape
    moved = weights.reshape(rows, height, width, channels).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(moved).reshape(weights.shape)


def _compared(pair: Pair, parts: Sequence[_Part]) -> Compared:
    again = pair.planned is not None
    return Compared(
        pair.name,
        pair.source.place.kind,
        pair.source.place.layer,
        pair.made.encoding.name,
        pair.source.elements,
        math.fsum(part.square_error for part in parts),
        math.fsum(part.square for part in parts),
        sum(part.differing for part in parts) if again else None,
        all(part.equal for part in parts) if again else None,
    )


def by_kind(tensors: Sequence[Compared]) -> Mapping[str, list[Compared]]:
    """Tensors of each kind that occurs, in the order of a table."""
    groups = {kind: [tensor for tensor in tensors if tensor.kind == kind] for kind in kinds()}
    return {kind: group for kind, group in groups.items() if group}
