"""What will be written: every tensor with its name, type and bytes. The single truth behind sizes and real runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.encodings import Encoding
from gemmaq.errors import InputError
from gemmaq.gemma import names
from gemmaq.recipe import Recipe, encoding_for


@dataclass(frozen=True, slots=True)
class Format:
    """What a container demands of the tensors in it.

    Attributes:
        name: `gguf`, `safetensors`.
        encodings: names of the encodings it can hold.
        rename: canonical tensor name -> its name in the container.
        vector: encoding of one-dimensional tensors, None for that of the recipe's body.
        norm_shift: what it adds to norm weights.
    """

    name: str
    encodings: frozenset[str]
    rename: Callable[[str], str]
    vector: Encoding | None
    norm_shift: float


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor to be written.

    Attributes:
        source: where its weights come from.
        name: in the container.
        encoding: to be written in.
        method: how codes are chosen.
        shift: to be added to the decoded source weights.
        reason: why the encoding is not the one asked for, or None.
    """

    source: Tensor
    name: str
    encoding: Encoding
    method: str
    shift: float
    reason: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its codes and scales."""
        return self.source.rows * self.encoding.row_bytes(self.source.columns)

    @property
    def copied(self) -> bool:
        """Whether the stored bytes can be taken over as they are."""
        return self.encoding == self.source.encoding and self.shift == 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a conversion writes, before any of it is.

    Attributes:
        format: of the container.
        recipe: it was made with.
        tensors: in file order.
        warnings: what the user should know, a sentence each.
    """

    format: str
    recipe: Recipe
    tensors: tuple[PlannedTensor, ...]
    warnings: tuple[str, ...]

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, without headers and padding."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def elements(self) -> int:
        """Weights in all."""
        return sum(tensor.source.elements for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Over all tensors."""
        return 8 * self.tensor_bytes / self.elements

    @property
    def counts(self) -> Mapping[str, int]:
        """Type -> how many tensors have it, the most frequent first."""
        return dict(Counter(tensor.encoding.name for tensor in self.tensors).most_common())


def make_plan(checkpoint: Checkpoint, recipe: Recipe, target: Format) -> Plan:
    """Decide how every tensor of a checkpoint is to be written.

    Raises:
        InputError: the container cannot hold what the recipe asks for.
    """
    for encoding in (recipe.body, recipe.embedding):
        if encoding is not None and encoding.name not in target.encodings:
            raise InputError(
                f"{target.name} files cannot hold {encoding.label}",
                f"{target.name} holds: {', '.join(sorted(target.encodings))}",
            )
    planned = tuple(_planned(tensor, recipe, target) for tensor in checkpoint.tensors.values())
    return Plan(target.name, recipe, planned, tuple(_warnings(checkpoint, planned)))


def _planned(tensor: Tensor, recipe: Recipe, target: Format) -> PlannedTensor:
    shift = tensor.shift + (target.norm_shift if names.is_norm(tensor.name) else 0.0)
    reason = None
    if len(tensor.shape) > 1:
        encoding, reason = encoding_for(recipe, tensor.name, tensor.columns)
    else:
        encoding = target.vector or recipe.body
    return PlannedTensor(tensor, target.rename(tensor.name), encoding, recipe.method, shift, reason)


def _warnings(checkpoint: Checkpoint, planned: tuple[PlannedTensor, ...]) -> list[str]:
    warnings = list(checkpoint.notes)
    if checkpoint.vision:
        gigabytes = sum(checkpoint.vision.values()) / 1e9
        warnings.append(f"the vision tower ({gigabytes:.2f} GB) is left out, the result is text-only")
    again = [t for t in planned if not t.source.encoding.is_float and not t.encoding.is_float and not t.copied]
    if again:
        kinds = sorted({t.source.encoding.label for t in again})
        warnings.append(
            f"{len(again)} tensors are quantized a second time (from {', '.join(kinds)}): "
            "a BF16 checkpoint gives a better result"
        )
    fallbacks = Counter(t.reason for t in planned if t.reason)
    warnings += [f"{count} tensor{'s' if count > 1 else ''}: {reason}" for reason, count in fallbacks.items()]
    return warnings
