"""Rows of a planned tensor: the codes that are chosen for them, and the weights that a runtime reads of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gemmaq import methods
from gemmaq.checkpoint.rows import Rows, read_rows
from gemmaq.encodings import Quantized, codec, dequantize
from gemmaq.errors import InputError
from gemmaq.files.span import Reader
from gemmaq.planning.plan import PlannedTensor

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Values


def chosen(planned: PlannedTensor, rows: Rows, first: int) -> Values:
    """Quantize rows of one matrix as planned.

    Args:
        planned: the plan of their tensor; if it mixes rows, these must be the whole tensor.
        rows: rows of the tensor that is stored (`PlannedTensor.stored`).
        first: index of the first row in the tensor.
    """
    if planned.keeps_codes and not planned.moved:
        return _repeated(rows.values, planned)
    shifted = rows.weights + np.float32(planned.shift) if planned.shift else rows.weights
    source = planned.source
    choice = planned.choice.of_matrix(first * source.matrices // source.rows)
    try:
        return methods.quantize(_ordered(shifted, planned), planned.encoding, choice)
    except InputError as error:
        raise error.at(tensor=error.tensor or source.spelled) from error


def _repeated(values: Values, planned: PlannedTensor) -> Values:
    """Codes whose scales and minima are those of the blocks that the target has, which may be parts of the source's."""
    encoding = planned.encoding
    if not isinstance(values, Quantized) or encoding.is_float or values.supers is not None:
        return values
    blocks = values.codes.shape[1] // encoding.group(values.codes.shape[1])
    times = blocks // values.scales.shape[1]
    if times == 1:
        return values
    scales, minima = (None if a is None else np.repeat(a, times, axis=1) for a in (values.scales, values.minima))
    assert scales is not None
    return Quantized(values.codes, scales, minima)


def _ordered(weights: F32, planned: PlannedTensor) -> F32:
    """The numbers of a whole tensor as the target stores them, in rows of the source's length."""
    if not planned.moved:
        return weights
    own = planned.source.arrangement.restore(weights) if planned.source.arrangement else weights
    return planned.arrangement.store(own) if planned.arrangement else own


def weights(planned: PlannedTensor, first: int, count: int, reader: Reader) -> F32:
    """Weights of rows of one matrix as they will be written, f32 [rows, columns], less the source's shift.

    So they take the place of what `checkpoint.rows.weights` reads. Scales that a container of MLX or safetensors has to
    round are not rounded here.

    Args:
        planned: the plan of their tensor, complete and with its numbers in the source's order.
        first: index of the first row.
        count: number of rows, all of one matrix.
        reader: reader of what is stored.

    Raises:
        InputError: the file ends early or cannot be read, or weights do not fit the type.
    """
    stored = planned.stored
    written = chosen(planned, Rows(stored, read_rows(stored, first, count, reader, bytearray())), first)
    encoding, loops = planned.encoding, codec(planned.encoding)
    if loops.pack is not None and loops.read is not None and planned.divisor == 1:
        written = loops.read(loops.pack(written))
    rows = dequantize(encoding, written)
    return rows - np.float32(planned.shift) if planned.shift else rows
