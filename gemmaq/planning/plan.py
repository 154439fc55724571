"""Plans: every tensor to be written with its name, type and bytes. Size tables and real runs both come from a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gemmaq.checkpoint import Tensor
from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.methods import METHODS, Choice, Needs
from gemmaq.planning.recipe import Recipe

MMPROJ = ("f16", "bf16", "f32")
"""Types that the vision side can have in a GGUF file."""


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


def no_constants(name: str, shape: tuple[int, ...], encoding: Encoding) -> tuple[Constant, ...]:
    """The constants of a container that has none."""
    return ()


@dataclass(frozen=True, slots=True)
class Format:
    """Demands of a container on the tensors in it.

    Attributes:
        name: name of the container.
        holds: whether it can hold an encoding.
        holds_embedding: whether it can hold the embedding in an encoding.
        gguf_names: Whether tensors have their GGUF names, norms GGUF's shift, and the vision side a file of its own
            (mmproj); all of that is the family's. Otherwise names are canonical and nothing is shifted.
        vector: encoding of one-dimensional tensors, None for that of the recipe's body, or BF16 if that is quantized.
        default_embedding: encoding of the body -> name of that of the embedding if nothing else is asked for.
        pieces: encoding and columns -> the arrays a tensor is stored in.
        portable: whether its scales are BF16, so that codes must be chosen for scales that BF16 and FP16 hold exactly.
        text_prefix: prefix of the names of text tensors in a model with vision tensors.
        channels_last: whether kernels of a convolution have their channels last.
        repeats_head: whether a model with vision tensors stores the embedding a second time, as its head.
        layout: layout of `checkpoint.rows` that reads tensors in several pieces back.
        constants: (name of a tensor, its shape, its encoding) -> constant arrays that go with it.
    """

    name: str
    holds: Callable[[Encoding], bool]
    holds_embedding: Callable[[Encoding], bool]
    gguf_names: bool
    vector: Encoding | None
    default_embedding: Callable[[Encoding], str]
    pieces: Callable[[Encoding, int], tuple[PieceSpec, ...]]
    portable: bool
    text_prefix: str = ""
    channels_last: bool = False
    repeats_head: bool = False
    layout: str = "plain"
    constants: Callable[[str, tuple[int, ...], Encoding], tuple[Constant, ...]] = no_constants

    @property
    def encodings(self) -> frozenset[str]:
        """Names of the encodings it can hold."""
        return frozenset(name for name, encoding in ENCODINGS.items() if self.holds(encoding))

    @property
    def embedding_encodings(self) -> frozenset[str]:
        """Names of the encodings it can hold the embedding in."""
        return frozenset(name for name, encoding in ENCODINGS.items() if self.holds_embedding(encoding))


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor to be written.

    Attributes:
        source: tensor of the source.
        name: name in the container.
        encoding: encoding in the container.
        pieces: arrays that store it.
        choice: method and its inputs.
        shift: number added to the source's weights.
        reason: reason for another encoding than the requested one, or None.
        channels_last: whether a convolution kernel is written with its channels last.
        solved: codes and scales that calibration has chosen already, on disk; None otherwise.
    """

    source: Tensor
    name: str
    encoding: Encoding
    pieces: tuple[PieceSpec, ...]
    choice: Choice
    shift: float
    reason: str | None = None
    channels_last: bool = False
    solved: Tensor | None = None

    @property
    def stored(self) -> Tensor:
        """The tensor that is read: calibrated codes if there are any, else the source."""
        return self.solved or self.source

    @property
    def array_names(self) -> tuple[str, ...]:
        """Names of its arrays in the container, in the order of its pieces."""
        if len(self.pieces) == 1:
            return (self.name,)
        return tuple(self.name.removesuffix("weight") + piece.suffix for piece in self.pieces)

    @property
    def needs(self) -> Needs:
        """Inputs that its method needs besides the weights."""
        return METHODS[self.choice.method].needs

    @property
    def is_complete(self) -> bool:
        """Whether its codes can be chosen: calibrated methods need importances, or codes chosen ahead."""
        return self.needs is Needs.NOTHING or self.solved is not None or self.choice.importance is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the container, rows first."""
        if not self.channels_last:
            return self.source.shape
        rows, channels, height, width = self.source.shape
        return rows, height, width, channels

    @property
    def moved(self) -> bool:
        """Whether its axes are permuted."""
        return self.channels_last != self.source.channels_last

    @property
    def nbytes(self) -> int:
        """Bytes of its codes and scales."""
        return self.source.rows * sum(piece.row_bytes for piece in self.pieces)

    @property
    def keeps_codes(self) -> bool:
        """Whether the stored codes are kept because they mean the same in the encoding."""
        return self.encoding.same_codes(self.stored.encoding) and self.shift == 0

    @property
    def copied(self) -> bool:
        """Whether the stored bytes are copied."""
        same = self.encoding == self.stored.encoding and self.shift == 0 and not self.moved
        return same and self.stored.layout == "plain" and len(self.pieces) == 1


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a conversion writes into one container, before any of it is.

    Attributes:
        format: name of the container.
        recipe: types and methods that were requested.
        tensors: tensors of the text model, in file order.
        warnings: a sentence for each thing the user should know.
        extra: vision tensors, and a head if the container repeats the embedding as one.
        mmproj: requested type of the vision tensors, None if there are none.
    """

    format: str
    recipe: Recipe
    tensors: tuple[PlannedTensor, ...]
    warnings: tuple[str, ...]
    extra: tuple[PlannedTensor, ...] = ()
    mmproj: str | None = None

    @property
    def everything(self) -> tuple[PlannedTensor, ...]:
        """All tensors that are written."""
        return (*self.tensors, *self.extra)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the text model's tensors, without headers and padding."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def elements(self) -> int:
        """Number of weights of the text model."""
        return sum(tensor.source.elements for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits per weight of the text model."""
        return 8 * self.tensor_bytes / self.elements

    @property
    def body(self) -> Encoding:
        """The encoding of the layers' matrices: as asked for, or that of most of their bytes if the source decides."""
        if not self.recipe.keep:
            return self.recipe.body
        sizes: Counter[Encoding] = Counter()
        for tensor in self.tensors:
            if tensor.source.place.role.is_layer_matrix:
                sizes[tensor.encoding] += tensor.nbytes
        return sizes.most_common(1)[0][0]

    @property
    def label(self) -> str:
        """The types as file names show them: as asked for, or that of the body if the source decides."""
        return self.body.label if self.recipe.keep else self.recipe.label

    @property
    def file_type(self) -> int | None:
        """GGUF's general.file_type, None for types that llama.cpp has no number for."""
        return self.body.file_type if self.recipe.keep else (self.recipe.mixture or self.recipe.body).file_type

    @property
    def counts(self) -> Mapping[str, int]:
        """Type -> number of tensors, the most frequent first."""
        return dict(Counter(tensor.encoding.name for tensor in self.tensors).most_common())
