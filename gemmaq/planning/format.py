"""Demands of a container on the tensors in it: which types it holds, under which names, in which arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from gemmaq.encodings import ENCODINGS, Encoding


@dataclass(frozen=True, slots=True)
class PieceSpec:
    """One array of a tensor in a container.

    Attributes:
        suffix: suffix of its name in place of `weight`, as in `scales`.
        dtype: safetensors name of its type.
        columns: numbers in a row.
        row_bytes: bytes of a row.
    """

    suffix: str
    dtype: str
    columns: int
    row_bytes: int


def array_name(tensor: str, piece: PieceSpec, pieces: int) -> str:
    """Name of one of a tensor's arrays: its own if there is only one."""
    return tensor if pieces == 1 else tensor.removesuffix("weight") + piece.suffix


@dataclass(frozen=True, slots=True)
class Constant:
    """A small array whose content is known from the plan, written ahead of the tensors.

    Attributes:
        name: name in the container.
        dtype: safetensors name of its type.
        shape: dimensions.
        data: content.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def no_constants(name: str, shape: tuple[int, ...], encoding: Encoding, divisor: float) -> tuple[Constant, ...]:
    """The constants of a container that has none."""
    return ()


class Stacking(Enum):
    """How a container stores stacks of experts."""

    WHOLE = "as in the checkpoint"
    SPLIT = "a stack for each projection"
    SINGLE = "the matrices of every expert"


def whole(encoding: Encoding) -> Stacking:
    """Stacks stay whole in every encoding."""
    return Stacking.WHOLE


def no_router(body: Encoding) -> Encoding | None:
    """Matrices that choose experts are stored like vectors."""
    return None


@dataclass(frozen=True, slots=True)
class Format:
    """Demands of a container on the tensors in it.

    Attributes:
        name: name of the container.
        holds: whether it can hold an encoding.
        holds_embedding: whether it can hold the embedding in an encoding.
        gguf_names: Whether tensors have their GGUF names, norms GGUF's shift, and the towers a file of their own
            (mmproj); all of that is the family's. Otherwise names are canonical and nothing is shifted.
        vector: encoding of one-dimensional tensors, None for that of the recipe's body, or BF16 if that is quantized.
        default_embedding: encoding of the body -> name of that of the embedding if nothing else is asked for.
        pieces: encoding and columns -> the arrays a tensor is stored in.
        portable: whether its scales are BF16, so that codes must be chosen for scales that BF16 and FP16 hold exactly.
        channels_last: whether kernels of a convolution have their channels last.
        repeats_head: whether it stores the embedding of a model with towers again, as head, if the family asks for it.
        layout: layout of `checkpoint.rows` that reads tensors in several pieces back.
        constants: (name of a tensor, its shape, its encoding, the divisor of its scales) -> constant arrays that go
            with it.
        divides_scales: whether scales of a tensor have a divisor, which makes those of four bits finer.
        experts: how stacks of experts are stored in an encoding.
        router: (encoding of the body) -> that of matrices that choose experts, None for that of vectors.
        projection: encoding of the matrix that makes the inputs of all layers, where the body is quantized.
        hf_names: whether tensors have the names that the family's class in transformers gives them, not canonical ones.
        nested: whether config.json and names are those of a model with towers wherever the family has such a layout.
        idle: whether its runtimes demand tensors that none of them uses.
        fuses: whether its runtimes fuse matrices that share an input, which then must have the same type.
    """

    name: str
    holds: Callable[[Encoding], bool]
    holds_embedding: Callable[[Encoding], bool]
    gguf_names: bool
    vector: Encoding | None
    default_embedding: Callable[[Encoding], str]
    pieces: Callable[[Encoding, int], tuple[PieceSpec, ...]]
    portable: bool
    channels_last: bool = False
    repeats_head: bool = False
    layout: str = "plain"
    divides_scales: bool = False
    constants: Callable[[str, tuple[int, ...], Encoding, float], tuple[Constant, ...]] = no_constants
    experts: Callable[[Encoding], Stacking] = whole
    router: Callable[[Encoding], Encoding | None] = no_router
    projection: Encoding = ENCODINGS["bf16"]
    nested: bool = False
    hf_names: bool = False
    idle: bool = False
    fuses: bool = False

    @property
    def encodings(self) -> frozenset[str]:
        """Names of the encodings it can hold."""
        return frozenset(name for name, encoding in ENCODINGS.items() if self.holds(encoding))

    @property
    def embedding_encodings(self) -> frozenset[str]:
        """Names of the encodings it can hold the embedding in."""
        return frozenset(name for name, encoding in ENCODINGS.items() if self.holds_embedding(encoding))


def pieces_of(target: Format, encoding: Encoding, columns: int, scales: str) -> tuple[PieceSpec, ...]:
    """The arrays a tensor is stored in, its scales as asked for where they are BF16 by default.

    Args:
        target: demands of the container.
        encoding: type of the tensor.
        columns: weights of a row.
        scales: type of the scales in arrays of their own, `bf16` or `f16`.
    """
    first, *others = target.pieces(encoding, columns)
    return first, *(replace(piece, dtype=scales.upper()) if piece.dtype == "BF16" else piece for piece in others)
