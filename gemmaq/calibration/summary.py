"""What an importance matrix says, in figures: those of `llama-imatrix --show-statistics`, and a few more.

Source of the formulas: llama.cpp's tools/imatrix/imatrix.cpp. All are of mean squared inputs, one of every column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration.imatrix import Entry, Imatrix, layer_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOP = 0.01
"""Share of the columns that count as the largest."""
_ACTIVE = 1e-5
"""Mean square above which an input counts as active."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures about the inputs of a matrix, or of a stack of matrices; experts without inputs are left out of them.

    Attributes:
        name: GGUF name.
        layer: number of its layer, None if it is in none.
        kind: which of the layer's matrices it is.
        columns: number of mean squares, those of all experts together.
        tokens: number of inputs, in the older form of files that of sequences.
        total: sum of the mean squares.
        least, most, mean, deviation: smallest, largest, mean and standard deviation.
        active: share above 1e-5.
        zeros: number of columns whose inputs were all zero.
        entropy: entropy in bits of their distribution over the columns, divided by its maximum.
        top: share of the total in the largest hundredth of the columns (at least one).
        outliers: share more than one standard deviation above the mean.
        similarity: cosine of the angle to the sums of the layer before, None without one.
        experts: number of experts, 0 if it is no stack.
        unseen: number of experts that had no inputs.
    """

    name: str
    layer: int | None
    kind: str
    columns: int
    tokens: int
    total: float
    least: float
    most: float
    mean: float
    deviation: float
    active: float
    zeros: int
    entropy: float
    top: float
    outliers: float
    similarity: float | None
    experts: int
    unseen: int


@dataclass(frozen=True, slots=True)
class Kind:
    """Figures about the matrices of a kind: sums of numbers, means of everything else over the layers.

    Attributes:
        kind: which of the layers' matrices they are.
        tensors: number of matrices or stacks.
        total, top, active, similarity: means of these figures; similarity is None if no layer has one.
        zeros: number of columns whose inputs were all zero.
        experts, unseen: number of experts, and of those that had no inputs.
    """

    kind: str
    tensors: int
    total: float
    top: float
    active: float
    zeros: int
    similarity: float | None
    experts: int
    unseen: int


def statistics(imatrix: Imatrix) -> list[Statistics]:
    """Figures about every entry, by layer and then by name, those outside the layers first."""

    def order(name: str) -> tuple[int, str]:
        layer = layer_of(name)
        return (-1 if layer is None else layer), name

    return [_statistics(name, imatrix) for name in sorted(imatrix.entries, key=order)]


def kinds(figures: Sequence[Statistics]) -> list[Kind]:
    """Figures about every kind of matrix, by name."""
    groups: dict[str, list[Statistics]] = {}
    for one in figures:
        groups.setdefault(one.kind, []).append(one)
    return [_kind(kind, group) for kind, group in sorted(groups.items())]


def _kind(kind: str, group: Sequence[Statistics]) -> Kind:
    alike = [one.similarity for one in group if one.similarity is not None]
    return Kind(
        kind,
        len(group),
        total=_mean([one.total for one in group]),
        top=_mean([one.top for one in group]),
        active=_mean([one.active for one in group]),
        zeros=sum(one.zeros for one in group),
        similarity=_mean(alike) if alike else None,
        experts=sum(one.experts for one in group),
        unseen=sum(one.unseen for one in group),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _statistics(name: str, imatrix: Imatrix) -> Statistics:
    entry, layer = imatrix.entries[name], layer_of(name)
    matrices = len(entry.counts)
    seen = entry.counts if entry.seen is None else entry.seen
    counts = entry.counts.astype(np.float64)[:, None]
    sums = entry.sums.reshape(matrices, -1).astype(np.float64)
    means = (sums[counts[:, 0] > 0] / counts[counts[:, 0] > 0]).reshape(-1)
    if not means.size:
        means = np.zeros(1)
    total, deviation = float(means.sum()), float(means.std())
    largest = np.partition(means, -_top(means.size))[-_top(means.size) :]
    return Statistics(
        name=name,
        layer=layer,
        kind=name.removesuffix(".weight").rpartition(".")[2],
        columns=means.size,
        tokens=int(seen.astype(np.float64).sum()),
        total=total,
        least=float(means.min()),
        most=float(means.max()),
        mean=float(means.mean()),
        deviation=deviation,
        active=float((means > _ACTIVE).mean()),
        zeros=int((means == 0).sum()),
        entropy=_entropy(means),
        top=float(largest.sum()) / total if total else 0.0,
        outliers=float((means > means.mean() + deviation).mean()) if deviation else 0.0,
        similarity=_similarity(entry, _before(name, layer, imatrix)),
        experts=matrices if matrices > 1 else 0,
        unseen=int((seen == 0).sum()) if matrices > 1 else 0,
    )


def _top(size: int) -> int:
    return max(1, round(TOP * size))


def _entropy(means: NDArray[np.float64]) -> float:
    """Entropy of the distribution over the columns, as a share of its maximum."""
    shares = means[means > 0] / (means.sum() or 1)
    return float(-(shares * np.log2(shares)).sum() / np.log2(means.size)) if means.size > 1 else 0.0


def _before(name: str, layer: int | None, imatrix: Imatrix) -> Entry | None:
    """The entry of the same matrix in the layer before."""
    if layer is None:
        return None
    return imatrix.entries.get(name.replace(f".{layer}.", f".{layer - 1}.", 1))


def _similarity(entry: Entry, before: Entry | None) -> float | None:
    """Cosine of the angle between the sums of two layers; None if they do not compare."""
    if before is None or before.sums.size != entry.sums.size:
        return None
    one, other = entry.sums.astype(np.float64), before.sums.astype(np.float64)
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / size if size else None
