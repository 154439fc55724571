"""Results of an evaluation: scores with labels and sizes, and errors of the weights against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from gemmaq.checkpoint import Checkpoint
from gemmaq.convert.compare import Compared, Pair, compare
from gemmaq.evaluate.chunks import Chunks
from gemmaq.evaluate.score import Score
from gemmaq.progress import ProgressCallback


@dataclass(frozen=True, slots=True)
class Result:
    """A model and its score.

    Attributes:
        source: Source as the user named it.
        label: Short name that no other model of the evaluation has, with the types of its KV cache.
        bytes: Size of its weight files.
        bits_per_weight: Mean bits per weight of its text tensors.
        score: Measures of its predictions.
        is_reference: Whether the others are compared with it.
        kv_type: Types of the KV cache that keys and values go through, empty for none.
    """

    source: str
    label: str
    bytes: int
    bits_per_weight: float
    score: Score
    is_reference: bool = False
    kv_type: str = ""

    @property
    def title(self) -> str:
        """The source, and the types of the KV cache: no other model of the evaluation has the same of both."""
        return with_cache(self.source, self.kv_type)

    @property
    def weights_label(self) -> str:
        """The label without the types of the KV cache, which weights do not depend on."""
        return self.label.removesuffix(with_cache("", self.kv_type))


def with_cache(name: str, kv_type: str) -> str:
    """Name of a model together with the types of its KV cache, if it has one."""
    return f"{name}, {kv_type} cache" if kv_type else name


def results(
    sources: Sequence[str],
    checkpoints: Sequence[Checkpoint],
    scores: Sequence[Score],
    kv_types: Sequence[str] = (),
) -> list[Result]:
    """Results in the order given, the reference first; types of KV caches as in `Result`."""
    labels = _labels(sources)
    kinds = kv_types or [""] * len(sources)
    return [
        Result(
            source=source,
            label=with_cache(labels[number], kinds[number]),
            bytes=sum(path.stat().st_size for path in checkpoint.files),
            bits_per_weight=8 * sum(tensor.nbytes for tensor in checkpoint.tensors.values()) / checkpoint.parameters,
            score=score,
            is_reference=not number,
            kv_type=kinds[number],
        )
        for number, (source, checkpoint, score) in enumerate(zip(sources, checkpoints, scores, strict=True))
    ]


def _labels(sources: Sequence[str]) -> list[str]:
    """The last parts of every path, as few as tell it from the others; without .gguf if they still differ."""
    paths = [Path(source).parts or (source,) for source in sources]
    labels = []
    for path in paths:
        count = 1
        others = [other for other in paths if other != path]
        while count < len(path) and any(other[-count:] == path[-count:] for other in others):
            count += 1
        labels.append("/".join(path[-count:]))
    plain = [label.removesuffix(".gguf") for label in labels]
    return plain if len(set(plain)) == len(set(labels)) else labels


def format_kl(value: float) -> str:
    """A divergence with four decimals, or with two digits if it is below 0.001."""
    return f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.2g}"


def weight_errors(
    reference: Checkpoint, models: Sequence[Checkpoint], *, threads: int, progress: ProgressCallback
) -> list[list[Compared]]:
    """Errors of every tensor against the reference's, a list for each model.

    Raises:
        InputError: A tensor cannot be read.
    """
    pairs = [
        [Pair(name, tensor, model.tensors[name]) for name, tensor in reference.tensors.items() if name in model.tensors]
        for model in models
    ]
    errors = iter(compare([pair for group in pairs for pair in group], threads=threads, progress=progress))
    return [list(islice(errors, len(group))) for group in pairs]


def kind_rows(results: Sequence[Result], chunks: Chunks) -> list[list[str]]:
    """The mean KL of every model on every kind of text, a row for each model; the names of the columns first."""
    rows = [["model", *chunks.scored_of]]
    for model in results[1:]:
        parts = [model.score.part(tokens) for tokens in chunks.scored_of.values()]
        rows.append([model.label, *(f"{format_kl(part.kl_mean)} ± {format_kl(part.kl_stderr)}" for part in parts)])
    return rows
