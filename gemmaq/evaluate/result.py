"""Scores with what people want to see beside them: names, sizes, and how far the weights are from the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gemmaq.checkpoint import Checkpoint
from gemmaq.convert.compare import Compared, Pair, compare
from gemmaq.evaluate import Score
from gemmaq.progress import ProgressCallback


@dataclass(frozen=True, slots=True)
class Model:
    """A model and its score.

    Attributes:
        source: as the user named it.
        label: short, and no other model's.
        bytes: of its weight files.
        bits_per_weight: of its text tensors.
        score: what it makes of the text.
        is_reference: whether the others are compared with it.
    """

    source: str
    label: str
    bytes: int
    bits_per_weight: float
    score: Score
    is_reference: bool = False


def described(sources: Sequence[str], opened: Sequence[Checkpoint], scores: Sequence[Score]) -> list[Model]:
    """Models in order, the reference first."""
    found = []
    labels = _labels(sources)
    for number, (source, checkpoint, score) in enumerate(zip(sources, opened, scores, strict=True)):
        stored = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
        size = sum(path.stat().st_size for path in checkpoint.files)
        bits = 8 * stored / checkpoint.parameters
        found.append(Model(source, labels[number], size, bits, score, not number))
    return found


def _labels(sources: Sequence[str]) -> list[str]:
    """As little of every path as tells it from the others; the endings of files go where they need not stay."""
    parts = [Path(source).parts or (source,) for source in sources]
    shown = []
    for mine in parts:
        count = 1
        others = [other for other in parts if other != mine]
        while count < len(mine) and any(other[-count:] == mine[-count:] for other in others):
            count += 1
        shown.append("/".join(mine[-count:]))
    plain = [label.removesuffix(".gguf") for label in shown]
    return plain if len(set(plain)) == len(set(shown)) else shown


def number(value: float) -> str:
    """A divergence: four decimals, or two digits of what is smaller."""
    return f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.2g}"


def distances(
    reference: Checkpoint, models: Sequence[Checkpoint], threads: int, progress: ProgressCallback
) -> list[list[Compared]]:
    """How far every tensor of every model is from the reference's.

    Raises:
        InputError: a tensor cannot be read.
    """
    pairs = [
        [Pair(name, tensor, model.tensors[name]) for name, tensor in reference.tensors.items() if name in model.tensors]
        for model in models
    ]
    found = compare([pair for some in pairs for pair in some], threads=threads, progress=progress)
    result, at = [], 0
    for some in pairs:
        result.append(found[at : at + len(some)])
        at += len(some)
    return result
