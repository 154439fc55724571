"""Compare tensors of an artifact with those of its source, slab by slab: errors, and whether bytes are as planned."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.checkpoint import Tensor, spans_of
from gemmaq.checkpoint.rows import Rows, read_rows, slabs
from gemmaq.containers import Writer
from gemmaq.convert.workers import run_all
from gemmaq.convert.write import SLAB_ELEMENTS, at_once
from gemmaq.encodings import Quantized, codec
from gemmaq.errors import InputError
from gemmaq.files.span import Reader
from gemmaq.models.families import kinds
from gemmaq.planning.drafter import PREFIX
from gemmaq.planning.plan import PlannedTensor
from gemmaq.planning.written import chosen
from gemmaq.progress import ProgressCallback

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8, Values

_DRAFTER = "drafter"


@dataclass(frozen=True, slots=True)
class Compared:
    """A tensor of an artifact, compared with the source.

    Attributes:
        name: name in the artifact.
        kind: kind of tensor (`Place.kind`), `drafter` for every tensor of a drafter beside a model.
        layer: index of its decoder layer, None outside the layers.
        encoding: name of its encoding.
        elements: number of weights.
        square_error: sum of the squared differences from the source's weights.
        square: sum of the source's squared weights.
        differing: number of codes (of weights, for floats) that differ from the plan; None without a plan.
        equal: whether all bytes are as planned; None without a plan.
        apart: RMS difference from the weights that were tuned here, as a share of what tuning changed; None if none
            were.
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
    apart: float | None = None

    @property
    def error(self) -> float:
        """Relative RMS error."""
        return relative(self.square_error, self.square)


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of the source and of the artifact, with its plan and the container that packs it if they are known.

    `count` is called with the values of some rows as planned, from any thread; not where a loop rounds and packs them
    at once, as scales of nearest codes are not counted.
    """

    name: str
    source: Tensor
    stored: Tensor
    planned: PlannedTensor | None = None
    container: Writer | None = None
    count: Callable[[Values], None] | None = None


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
    """Reusable memory that a worker reads into."""

    source: bytearray = field(default_factory=bytearray)
    stored: bytearray = field(default_factory=bytearray)
    solved: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class _Part:
    """Differences in some rows; of tuned ones also the squared difference from these, and by how much they changed."""

    square_error: float
    square: float
    differing: int
    equal: bool
    apart: float = 0.0
    tuned: float = 0.0


def relative(square_error: float, square: float) -> float:
    """Relative RMS error; 0 without any error, even for a tensor of zeros."""
    return math.sqrt(square_error / square) if square else (math.inf if square_error else 0.0)


def compare(pairs: Sequence[Pair], *, threads: int, progress: ProgressCallback) -> list[Compared]:
    """Compare every pair, in order; a worker holds a slab of rows at a time.

    Args:
        pairs: tensors of equal shape.
        threads: number of workers.
        progress: called after every slab.

    Raises:
        InputError: the source cannot be read.
    """
    slabs = [_Slab(number, pair, first, count) for number, pair in enumerate(pairs) for first, count in _slabs(pair)]
    with Reader() as reader:
        reader.open(spans_of(tensor for pair in pairs for tensor in _read(pair)))
        results = run_all(
            lambda slab, buffers: _rows(slab, reader, buffers),
            slabs,
            buffers=_Buffers,
            threads=threads,
            task="comparing",
            progress=progress,
        )
    parts: list[list[_Part]] = [[] for _ in pairs]
    for slab, part in zip(slabs, results, strict=True):
        parts[slab.number].append(part)
    return [_compared(pair, some) for pair, some in zip(pairs, parts, strict=True)]


def _read(pair: Pair) -> list[Tensor]:
    """All tensors that are read to compare a pair."""
    solved = [pair.planned.solved] if pair.planned is not None and pair.planned.solved is not None else []
    return [pair.source, pair.stored, *solved]


def _slabs(pair: Pair) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each slab; a tensor whose numbers are in another order is one slab."""
    whole = pair.source.mixes_rows or pair.stored.mixes_rows
    return slabs(pair.source, pair.source.elements if whole else SLAB_ELEMENTS)


@np.errstate(all="ignore")  # damaged weights may be anything
def _rows(slab: _Slab, reader: Reader, buffers: _Buffers) -> _Part:
    """Compare some rows."""
    from gemmaq.convert.compare_kernels import square_sums

    pair, first, count = slab.pair, slab.first, slab.count
    source = Rows(pair.source, read_rows(pair.source, first, count, reader, buffers.source))
    stored = Rows(pair.stored, read_rows(pair.stored, first, count, reader, buffers.stored))
    differing, equal, ready = 0, True, source
    expected: Values | None = None
    planned, container = pair.planned, pair.container
    if planned is not None and container is not None:
        if planned.solved is not None:
            ready = Rows(planned.solved, read_rows(planned.solved, first, count, reader, buffers.solved))
        fused = at_once(planned, container)
        if planned.copied:
            packed: tuple[U8, ...] = (ready.arrays[0],)
        elif fused is not None:
            packed = fused(ready.bits)
        else:
            expected = chosen(planned, ready, first)
            if pair.count is not None:
                pair.count(expected)
            packed = container.pack(planned, expected)
        equal = all(_same(made, kept) for made, kept in zip(packed, stored.arrays, strict=True))
        if equal and fused is not None and (errors := codec(planned.encoding).errors) is not None:
            return _Part(*errors(source.bits, stored.arrays[0]), 0, True)
    try:
        actual = stored.values
    except InputError:  # the arrays of the tensor contradict each other
        return _Part(math.inf, 1.0, count * pair.source.columns, False)
    if planned is not None and not equal:
        if expected is None:
            expected = ready.values if planned.copied else chosen(planned, ready, first)
        differing = _differing(expected, actual)
    reference, own = _as_torch(source.weights, pair.source), _as_torch(stored.weights, pair.stored)
    shift, own_shift = pair.source.shift, pair.stored.shift
    part = _Part(*square_sums(own, own_shift, reference, shift), differing, equal)
    if planned is None or not planned.tuned or planned.solved is None:
        return part
    apart, _ = square_sums(own, own_shift, ready.weights, shift)
    tuned, _ = square_sums(ready.weights, shift, reference, shift)
    return replace(part, apart=apart, tuned=tuned)


def _same(a: U8, b: U8) -> bool:
    """Whether two arrays have the same bytes; most are compared eight at a time."""
    first, second = a.reshape(-1), b.reshape(-1)
    if first.size != second.size:
        return False
    words = first.size // 8 * 8
    is_same = np.array_equal(first[:words].view(np.uint64), second[:words].view(np.uint64))
    return is_same and np.array_equal(first[words:], second[words:])


def _differing(a: Values, b: Values) -> int:
    """Number of codes or weights that differ."""
    first, second = (values.codes if isinstance(values, Quantized) else values for values in (a, b))
    return int(np.count_nonzero(first != second))


def _as_torch(weights: F32, tensor: Tensor) -> F32:
    """The tensor's own numbers, in the order that its shape has."""
    return weights if tensor.arrangement is None else tensor.arrangement.restore(weights)


def _compared(pair: Pair, parts: Sequence[_Part]) -> Compared:
    has_plan, is_tuned = pair.planned is not None, any(part.tuned for part in parts)
    return Compared(
        pair.name,
        _DRAFTER if pair.name.startswith(PREFIX) else pair.source.place.kind,
        pair.source.place.layer,
        pair.stored.encoding.name,
        pair.source.elements,
        math.fsum(part.square_error for part in parts),
        math.fsum(part.square for part in parts),
        sum(part.differing for part in parts) if has_plan else None,
        all(part.equal for part in parts) if has_plan else None,
        relative(sum(part.apart for part in parts), sum(part.tuned for part in parts)) if is_tuned else None,
    )


def by_kind(tensors: Sequence[Compared]) -> Mapping[str, list[Compared]]:
    """Tensors of each kind that occurs, in the order of a table."""
    order = dict.fromkeys((*kinds(), *(tensor.kind for tensor in tensors)))
    groups = {kind: [tensor for tensor in tensors if tensor.kind == kind] for kind in order}
    return {kind: group for kind, group in groups.items() if group}
