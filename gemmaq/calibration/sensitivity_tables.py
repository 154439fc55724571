"""Sensitivities of tables: of the embedding at the input and as the head, and of the embedding of every layer.

What a type costs at the head is measured for each, as no layer has to run for it; at the input it is scaled by the
errors of the rows that the text reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration import gptq
from gemmaq.calibration.sensitivity_errors import PROBES, writes
from gemmaq.calibration.sensitivity_head import tensor_of
from gemmaq.calibration.sensitivity_layers import nearest
from gemmaq.encodings import ENCODINGS, dequantize
from gemmaq.inference.device import aligned
from gemmaq.models.roles import Role

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from gemmaq.calibration.sensitivity_head import Reference
    from gemmaq.checkpoint import Tensor
    from gemmaq.encodings import F32, Encoding
    from gemmaq.files.span import Reader
    from gemmaq.inference.batch import Batch
    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.documents import Tokens

DAMPING = 0.3
"""Added to the diagonal of the Hessian of the inputs of the head, as a fraction of its mean."""
_SLAB = 1 << 18


def embedded(decoder: Decoder, tokens: Tokens, name: str, encoding: str) -> list[Batch]:
    """Input of the first layer with one table in a type, rounded to nearest."""
    kind = ENCODINGS[encoding]

    def weights(tensor: Tensor, first: int, count: int, reader: Reader) -> F32:
        rows = decoder.weights(tensor, first, count, reader)
        return nearest(rows, kind) if tensor.name == name else rows

    return replace(decoder, weights=weights).embed(tokens)


@dataclass(frozen=True, slots=True)
class Table:
    """A table, and the rows of it that matter to the text.

    Attributes:
        tensor: the table.
        ids: numbers of the rows, ascending, i64 [rows].
        rows: the rows, f32 [rows, columns].
        times: how often the text reads each, i64 [rows]; zeros for a head of its own.
        predicted: places among the rows of those that predictions are compared over, i64; None if it is no head.
    """

    tensor: Tensor
    ids: NDArray[np.int64]
    rows: F32
    times: NDArray[np.int64]
    predicted: NDArray[np.int64] | None

    def read_error(self, weights: F32) -> float:
        """Squared errors of the rows that the text reads, f32 [rows, columns], summed."""
        of_rows = np.square(weights - self.rows, dtype=np.float64).sum(1)
        return float((of_rows * self.times).sum())


def table(decoder: Decoder, tensor: Tensor, tokens: Tokens, predicted: NDArray[np.int64]) -> Table:
    """The rows of a table that matter to a text.

    Args:
        decoder: the model.
        tensor: the table.
        tokens: the text.
        predicted: tokens that predictions are compared over.
    """
    distinct, counts = np.unique(tokens, return_counts=True)
    is_head = tensor is tensor_of(decoder)
    if tensor.place.role is Role.HEAD:
        distinct, counts = distinct[:0], counts[:0]
    ids = np.union1d(distinct, predicted) if is_head else distinct
    times = np.zeros(len(ids), np.int64)
    times[np.searchsorted(ids, distinct)] = counts
    rows: F32 = aligned(len(ids), tensor.columns).numpy()

    def read(at: int) -> None:
        rows[at] = decoder.weights(tensor, int(ids[at]), 1, decoder.reader)[0]

    decoder.device.map(read, range(len(ids)))
    return Table(tensor, ids, rows, times, np.searchsorted(ids, predicted) if is_head else None)


def probe(encodings: Sequence[Encoding], rows: F32) -> str:
    """The type that the model is run with: the first probe that leaves an error in some rows, f32 [rows, columns]."""
    present = [name for name in PROBES if ENCODINGS[name] in encodings]
    for name in present:
        if np.square(nearest(rows, ENCODINGS[name]) - rows).sum() > 1e-6 * np.square(rows).sum():
            return name
    return present[0]


@dataclass(frozen=True, slots=True)
class Judged:
    """What predictions of the unquantized model are compared with.

    Attributes:
        reference: these predictions.
        states: inputs of its head, f32 [tokens, hidden].
        hessian: X^T X of the inputs X of its head on other text, f32 [hidden, hidden].
    """

    reference: Reference
    states: torch.Tensor
    hessian: torch.Tensor


def losses(
    decoder: Decoder,
    of: Table,
    encodings: Sequence[Encoding],
    *,
    states: torch.Tensor,
    measured: str,
    judged: Judged,
) -> dict[str, dict[str, float]]:
    """Losses of a table in types: method -> name of the type -> mean KL divergence in nats.

    Args:
        decoder: the model.
        of: the table.
        encodings: the types.
        states: inputs of the head of the model that was run with the table in one of them, f32 [tokens, hidden].
        measured: the name of this type.
        judged: what predictions are compared with.
    """
    import torch

    read: dict[tuple[str, str], float] = {}
    predicted: dict[tuple[str, str], float] = {}
    joint, reference = 0.0, judged.reference
    for key, weights in _values(decoder, of, encodings, judged):
        read[key], predicted[key], head = of.read_error(weights), 0.0, None
        if of.predicted is not None:
            head = aligned(len(of.predicted), weights.shape[1])
            head = head.copy_(torch.from_numpy(weights[of.predicted])).to(states.device)
            predicted[key] = reference.divergence(judged.states, head)
        if key == ("nearest", measured):
            joint = reference.divergence(states, head)
    unit = read["nearest", measured]
    rest = max(joint - predicted["nearest", measured], 0.0)
    found: dict[str, dict[str, float]] = {}
    for (method, name), error in read.items():
        at_input = rest * error / unit if unit else 0.0
        found.setdefault(method, {})[name] = predicted[method, name] + at_input
    return found


def _values(
    decoder: Decoder, of: Table, encodings: Sequence[Encoding], judged: Judged
) -> Iterator[tuple[tuple[str, str], F32]]:
    """Method and type, and the rows in it, f32 [rows, columns]."""
    step = max(1, _SLAB // of.tensor.columns)
    for encoding in encodings:
        if writes("nearest", encoding):

            def run(at: int, encoding: Encoding = encoding) -> F32:
                return nearest(of.rows[at : at + step], encoding)

            yield ("nearest", encoding.name), np.concatenate(decoder.device.map(run, range(0, len(of.rows), step)))
    if of.predicted is None:
        return
    of_blocks: dict[gptq.Blocks, list[Encoding]] = {}
    for encoding in encodings:
        if writes("gptq", encoding):
            of_blocks.setdefault(gptq.Blocks.of(encoding), []).append(encoding)
    for blocks, same in of_blocks.items():
        inverse = gptq.invert(judged.hessian, gptq.Settings(DAMPING), blocks=blocks, device=decoder.device)
        for encoding in same:
            values = gptq.quantize(of.rows, inverse, encoding, portable=False, device=decoder.device)
            yield ("gptq", encoding.name), dequantize(encoding, values)
