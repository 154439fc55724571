"""Weights of a model merged with an adapter, computed as f32 while rows are read.

The order of operations is that of PEFT's `merge_and_unload` on a model in float32: the product of B and A is rounded to
f32, then its product with the scaling, then the sum with the weight. Sums are in the order that PyTorch takes on x86-64
with AVX2 (see `kernels`). On other processors, or on a GPU, PyTorch sums in another order: then last bits of f32 differ
from PEFT's there, and after rounding to BF16 about one weight in 50,000.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gemmaq.checkpoint import Tensor
from gemmaq.checkpoint.rows import read_rows, values_of, weights
from gemmaq.encodings import ENCODINGS, dequantize
from gemmaq.files.span import Reader

if TYPE_CHECKING:
    from gemmaq.encodings import F32

_SLAB = 1 << 20
_LOCK = threading.Lock()


class Step(Protocol):
    """A change of a tensor by an adapter."""

    @property
    def read(self) -> tuple[Tensor, ...]:
        """Tensors of the adapter that are read."""

    def apply(self, rows: F32, first: int, reader: Reader, before: Merged, /) -> None:
        """Change rows in place, f32 [rows, columns], of which `first` is the first; `before` is the tensor so far."""


@dataclass(frozen=True, slots=True)
class _Product:
    """A and B of a matrix of low rank, the factor of their product, and norms after the addition (DoRA), if any."""

    a: Tensor
    b: Tensor
    scaling: float
    magnitude: Tensor | None = None

    @property
    def read(self) -> tuple[Tensor, ...]:
        """A, B, and the norms if there are any."""
        return (self.a, self.b, *((self.magnitude,) if self.magnitude is not None else ()))


@dataclass(frozen=True, slots=True)
class LowRank(_Product):
    """A matrix of low rank that is added.

    Attributes:
        a: A, [rank, columns].
        b: B, [rows, rank].
        scaling: Factor of their product.
        magnitude: Norms of the rows after the addition (DoRA), [rows]; None to leave them.
    """

    def apply(self, rows: F32, first: int, reader: Reader, before: Merged) -> None:
        """Add the product's rows; see `Step`."""
        from gemmaq.checkpoint.lora.kernels import add_product, set_magnitudes

        a = weights(self.a, 0, self.a.rows, reader)
        b = weights(self.b, first, len(rows), reader)
        add_product(rows, b, a, np.float32(self.scaling))
        if self.magnitude is not None:
            set_magnitudes(
                rows,
                weights(self.magnitude, 0, self.magnitude.rows, reader).reshape(-1)[first : first + len(rows)].copy(),
            )


@dataclass(frozen=True, slots=True)
class LowRankStack:
    """A matrix of low rank for each matrix of a stack, as PEFT stores them for `target_parameters`.

    Attributes:
        a: A of every matrix, [matrices * rank, columns].
        b: B of every matrix, [rows of a matrix, rank * matrices], the matrices side by side for every rank.
        scaling: Factor of their products.
        matrices: Number of matrices.
    """

    a: Tensor
    b: Tensor
    scaling: float
    matrices: int

    @property
    def read(self) -> tuple[Tensor, ...]:
        """A and B."""
        return (self.a, self.b)

    def apply(self, rows: F32, first: int, reader: Reader, before: Merged) -> None:
        """Add the products' rows; see `Step`."""
        from gemmaq.checkpoint.lora.kernels import add_product

        each, rank, done = self.b.shape[0], self.a.shape[0] // self.matrices, 0
        while done < len(rows):
            matrix, row = divmod(first + done, each)
            count = min(each - row, len(rows) - done)
            a = weights(self.a, matrix * rank, rank, reader)
            b = weights(self.b, row, count, reader)[:, matrix :: self.matrices]
            add_product(rows[done : done + count], np.ascontiguousarray(b), a, np.float32(self.scaling))
            done += count


@dataclass(frozen=True, slots=True)
class LowRankTable(_Product):
    """A matrix of low rank that is added to a table with a row for each token.

    Attributes:
        a: A, [rank, tokens].
        b: B, [columns, rank].
        scaling: Factor of their product, which is added transposed.
        magnitude: Norms of the columns after the addition (DoRA), [columns]; None to leave them.
    """

    def apply(self, rows: F32, first: int, reader: Reader, before: Merged) -> None:
        """Add the product's rows; see `Step`."""
        self.add(rows, first, reader)
        if self.magnitude is not None:
            rows *= weights(self.magnitude, 0, self.magnitude.rows, reader).reshape(1, -1) / _column_norms(before, self)

    def add(self, rows: F32, first: int, reader: Reader) -> None:
        """Add the product's rows, but leave the norms of the columns."""
        from gemmaq.checkpoint.lora.kernels import add_product

        tokens = np.stack([_columns(self.a, rank, first, len(rows), reader) for rank in range(self.a.rows)], axis=1)
        b = weights(self.b, 0, self.b.rows, reader)
        add_product(rows, tokens, np.ascontiguousarray(b.T), np.float32(self.scaling))


def _columns(tensor: Tensor, row: int, first: int, count: int, reader: Reader) -> F32:
    """Some weights of a row of a plain tensor, f32 [count]."""
    part = tensor.parts[0]
    size = part.row_bytes // tensor.columns
    raw = reader.bytes(part.span, part.offset + row * part.row_bytes + first * size, count * size)
    return dequantize(tensor.encoding, values_of(tensor, [np.frombuffer(raw, np.uint8).reshape(1, -1)])).reshape(-1)


@lru_cache(maxsize=2)
def _norms(before: Merged, step: LowRankTable) -> F32:
    from gemmaq.checkpoint.lora.kernels import add_squares

    base = before.base
    sums, count = np.zeros(base.columns, np.float32), max(1, _SLAB // base.columns)
    with Reader() as reader:
        for first in range(0, base.rows, count):
            rows = before.rows(first, min(count, base.rows - first), reader)
            step.add(rows, first, reader)
            add_squares(rows, sums)
    return np.sqrt(sums)


def _column_norms(before: Merged, step: LowRankTable) -> F32:
    """Norm of every column of a table after the addition, f32 [columns]: one more pass over the table, once."""
    with _LOCK:
        return _norms(before, step)


@dataclass(frozen=True, slots=True)
class Replaced:
    """Rows of a table that the adapter trained.

    Attributes:
        tokens: Indices of the rows.
        table: The rows, in the same order, [tokens, columns].
    """

    tokens: tuple[int, ...]
    table: Tensor

    @property
    def read(self) -> tuple[Tensor, ...]:
        """The rows."""
        return (self.table,)

    def apply(self, rows: F32, first: int, reader: Reader, before: Merged) -> None:
        """Put the trained rows in; see `Step`."""
        for at, token in enumerate(self.tokens):
            if first <= token < first + len(rows):
                rows[token - first] = weights(self.table, at, 1, reader)[0]


@dataclass(frozen=True, slots=True)
class Merged:
    """Reads a tensor with the changes of an adapter: the decoder of a merged tensor.

    Attributes:
        base: The tensor on disk that is changed.
        steps: The changes, in order.
    """

    base: Tensor
    steps: tuple[Step, ...] = ()

    @property
    def read(self) -> tuple[Tensor, ...]:
        """All tensors on disk that are read."""
        return (self.base, *(tensor for step in self.steps for tensor in step.read))

    def tensor(self) -> Tensor:
        """The merged tensor: f32, of the base's place and size on disk."""
        parts = tuple(part for tensor in self.read for part in tensor.parts)
        return Tensor(
            self.base.name, self.base.shape, ENCODINGS["f32"], parts, "decoded", place=self.base.place, decoder=self,
            stored_bytes=self.base.nbytes,
        )  # fmt: skip

    def values(self, reader: Reader, first: int, count: int) -> F32:
        """Merged rows, f32 [rows, columns], as `rows`; see `checkpoint.Decoder`."""
        return self.rows(first, count, reader)

    def rows(self, first: int, count: int, reader: Reader) -> F32:
        """Merged rows, f32 [rows, columns]; rows beyond those of the tensor are zeros.

        Raises:
            InputError: A file ends early or cannot be read.
        """
        result = np.zeros((count, self.base.columns), np.float32)
        held = max(0, min(count, self.base.rows - first))
        if not held:
            return result
        arrays = read_rows(self.base, first, held, reader, bytearray())
        rows = result[:held]
        rows[:] = dequantize(self.base.encoding, values_of(self.base, arrays))
        rows += np.float32(self.base.shift)
        for number, step in enumerate(self.steps):
            step.apply(rows, first, reader, Merged(self.base, self.steps[:number]))
        return result
