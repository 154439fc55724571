"""Read rows of a tensor from disk, as codes and scales or as weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.checkpoint import Tensor
from gemmaq.encodings import Quantized, codec, dequantize
from gemmaq.encodings.bitstream import unpack_codes, unpack_scales
from gemmaq.errors import InputError
from gemmaq.files.span import Reader

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8, U16, Values


def slabs(tensor: Tensor, elements: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of slabs of a tensor; none reaches from one matrix of a stack into the next.

    Args:
        tensor: The tensor.
        elements: Weights of a slab at most, but a row at least.
    """
    rows, step = tensor.rows // tensor.matrices, max(1, elements // tensor.columns)
    for first in range(0, tensor.rows, rows):
        for at in range(first, first + rows, step):
            yield at, min(step, first + rows - at)


def read_rows(tensor: Tensor, first: int, count: int, reader: Reader, buffer: bytearray) -> list[U8]:
    """Bytes of rows on disk, an array u8 [rows, row bytes] for each part; or what a decoder made of them.

    Args:
        tensor: The tensor.
        first: Index of the first row.
        count: Number of rows.
        reader: Reader of its files.
        buffer: Memory to read into, grown if it is too small; the arrays point into it, if it can be grown.

    Raises:
        InputError: The file ends early or cannot be read.
    """
    if tensor.decoder is not None:
        return _decoded(tensor.decoder.values(reader, first, count))
    size = count * tensor.row_bytes
    if len(buffer) < size:
        try:
            buffer.extend(bytes(size - len(buffer)))
        except BufferError:  # something still holds earlier rows, as a compiler may that ran meanwhile
            buffer = bytearray(size)
    view, arrays, at = memoryview(buffer), [], 0
    for part in tensor.parts:
        length = count * part.row_bytes
        part.read(reader, first, count, view[at : at + length])
        arrays.append(np.frombuffer(view[at : at + length], np.uint8).reshape(count, part.row_bytes))
        at += length
    return arrays


class Rows:
    """Rows as they were read; codes and weights are made of them when they are first asked for.

    Attributes:
        tensor: their tensor.
        arrays: what `read_rows` gave.
    """

    def __init__(self, tensor: Tensor, arrays: Sequence[U8]) -> None:
        self.tensor, self.arrays = tensor, arrays

    @cached_property
    def values(self) -> Values:
        """See `values_of`."""
        return values_of(self.tensor, self.arrays)

    @cached_property
    def weights(self) -> F32:
        """F32 [rows, columns], without the tensor's shift."""
        return dequantize(self.tensor.encoding, self.values)

    @property
    def bits(self) -> U16:
        """Bits of BF16 weights, u16 [rows, columns]."""
        return self.arrays[0].view(np.uint16)


def values_of(tensor: Tensor, arrays: Sequence[U8]) -> Values:
    """Codes and scales of rows that `read_rows` gave; weights for float encodings.

    Raises:
        InputError: The parts contradict each other.
    """
    return _LAYOUTS[tensor.layout](tensor, arrays)


def weights(tensor: Tensor, first: int, count: int, reader: Reader) -> F32:
    """Decoded rows, f32 [rows, columns], without the tensor's shift; raises as `read_rows`."""
    arrays = read_rows(tensor, first, count, reader, bytearray())
    return dequantize(tensor.encoding, values_of(tensor, arrays))


def _plain(tensor: Tensor, arrays: Sequence[U8]) -> Values:
    read = codec(tensor.encoding).read
    assert read is not None
    return read(arrays[0])


def _scales(tensor: Tensor, part: int, array: U8) -> F32:
    return unpack_scales(tensor.encoding, tensor.parts[part].dtype, array)


def _mlx(tensor: Tensor, arrays: Sequence[U8]) -> Values:
    codes, scales = unpack_codes(tensor.encoding.bits, arrays[0]), _scales(tensor, 1, arrays[1])
    if tensor.encoding.has_byte_scales:
        return Quantized(codes, scales)
    biases, zero = _scales(tensor, 2, arrays[2]), tensor.encoding.zero
    if zero is None:
        return Quantized(codes, scales, biases)
    if not np.array_equal(biases, -zero * scales):
        raise InputError(
            f"is on the grid of {tensor.encoding.label} only in part",
            "convert the checkpoint that it was made of",
            path=tensor.span,
            tensor=tensor.spelled,
        )
    return Quantized(codes, scales)


def _compressed_tensors(tensor: Tensor, arrays: Sequence[U8]) -> Values:
    scales = _scales(tensor, 1, arrays[1])
    if tensor.divisor != 1:
        scales = scales / np.float32(tensor.divisor)
    return Quantized(unpack_codes(tensor.encoding.bits, arrays[0]), scales)


def _decoded(values: Values) -> list[U8]:
    """Bytes of what a decoder gave: weights, or codes, scales and minima."""
    arrays = [values] if not isinstance(values, Quantized) else [values.codes, values.scales, values.minima]
    return [np.ascontiguousarray(array).view(np.uint8) for array in arrays if array is not None]


def _undone(tensor: Tensor, arrays: Sequence[U8]) -> Values:
    """The reverse of `_decoded`."""
    if len(arrays) == 1:
        return arrays[0].view(np.float32)
    return Quantized(arrays[0], *(array.view(np.float32) for array in arrays[1:]))


_LAYOUTS: dict[str, Callable[[Tensor, Sequence[U8]], Values]] = {
    "plain": _plain,
    "mlx": _mlx,
    "compressed-tensors": _compressed_tensors,
    "decoded": _undone,
}
