"""Plans: every tensor to be written with its name, type and bytes. Size tables and real runs both come from a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gemmaq.checkpoint import Tensor
from gemmaq.encodings import Encoding
from gemmaq.methods import METHODS, Choice, Needs
from gemmaq.models.arrangements import Arrangement
from gemmaq.models.slices import Slice
from gemmaq.planning.format import Constant, PieceSpec, array_name
from gemmaq.planning.recipe import Recipe
from gemmaq.planning.request import Matrix, Request

MMPROJ = ("f16", "bf16", "q8_0", "f32")
"""Types that the towers can have in a GGUF file."""


@dataclass(frozen=True, slots=True)
class Array:
    """An array of a planned tensor.

    Attributes:
        name: name in the container.
        part: the tensor of the container that it belongs to.
        piece: index of its piece.
    """

    name: str
    part: Slice
    piece: int


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
        arrangement: how its numbers are stored, None for as they are.
        solved: codes and scales that calibration has chosen already, on disk; None otherwise.
        slices: tensors of the container that hold its rows under their names there, empty for a single one.
        tuned: whether its weights are tuned when all codes are chosen; `solved` has them then.
    """

    source: Tensor
    name: str
    encoding: Encoding
    pieces: tuple[PieceSpec, ...]
    choice: Choice
    shift: float
    reason: str | None = None
    arrangement: Arrangement | None = None
    solved: Tensor | None = None
    slices: tuple[Slice, ...] = ()
    tuned: bool = False

    @property
    def stored(self) -> Tensor:
        """The tensor that is read: calibrated codes if there are any, else the source."""
        return self.solved or self.source

    @property
    def held(self) -> tuple[Slice, ...]:
        """The tensors of the container that hold its rows."""
        return self.slices or (Slice(self.name, self.shape, ((0, self.source.rows),)),)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """Its arrays in the container: those of every slice in the order of its pieces."""
        return tuple(
            Array(array_name(part.name, piece, len(self.pieces)), part, number)
            for part in self.held
            for number, piece in enumerate(self.pieces)
        )

    @property
    def array_names(self) -> tuple[str, ...]:
        """Names of its arrays in the container."""
        return tuple(array.name for array in self.arrays)

    @property
    def needs(self) -> Needs:
        """Inputs that its method needs besides the weights."""
        return METHODS[self.choice.method].needs

    @property
    def is_complete(self) -> bool:
        """Whether its codes can be chosen: calibrated methods need importances, or codes chosen ahead."""
        if self.tuned:
            return self.solved is not None
        return self.needs is Needs.NOTHING or self.solved is not None or self.choice.importance is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the container, rows first."""
        return self.source.shape if self.arrangement is None else self.arrangement.shape

    @property
    def mixes_rows(self) -> bool:
        """Whether numbers of a row are stored in other rows."""
        return self.arrangement is not None and self.arrangement.mixes(self.source.rows)

    @property
    def moved(self) -> bool:
        """Whether its numbers are stored otherwise than the source's."""
        moves = self.arrangement is not None and self.arrangement.moves
        return (moves or self.source.moved) and self.arrangement != self.source.arrangement

    @property
    def nbytes(self) -> int:
        """Bytes of its codes and scales."""
        return self.source.rows * sum(piece.row_bytes for piece in self.pieces)

    @property
    def keeps_codes(self) -> bool:
        """Whether the stored codes are kept because they mean the same in the encoding."""
        if self.stored.divisor != 1 and self.choice.portable:
            return False
        stored = self.stored
        same = self.encoding.same_codes(stored.encoding) or self.encoding.refines(stored.encoding, stored.columns)
        return same and self.shift == 0

    @property
    def divisor(self) -> float:
        """What scales of one byte are divided by: that of the source with its codes, that of the type else."""
        if self.keeps_codes:
            return self.stored.divisor
        return 1.0 if self.choice.portable else self.encoding.divisor

    @property
    def rounds_bf16(self) -> bool:
        """Whether codes are rounded to nearest from weights that are stored as BF16, without anything in between."""
        is_plain = self.stored.encoding.name == "bf16" and self.stored.layout == "plain" and self.shift == 0
        is_ported = self.choice.portable and self.encoding.holds_portable
        is_rounded = self.choice.method == "nearest" and not (is_ported or self.encoding.is_float)
        return is_plain and is_rounded and not self.moved

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
        request: what the user asked for.
        tensors: tensors of the text model, in file order.
        warnings: a sentence for each thing that costs the user something.
        extra: tensors of the towers, and a head if the container repeats the embedding as one.
        mmproj: requested type of the towers, None if there are none.
        generated: tensors that the container wants and no checkpoint has.
        drafter: plan of the drafter that is written beside the model, None for none; its names have a prefix.
        notes: a sentence for each thing that was taken, left out or chosen otherwise, and costs nothing.
        matrix: the importance matrix that its tensors are weighed with, None for none.
        matrix_file: content of that matrix's file, None if it is not kept or not computed yet.
    """

    format: str
    request: Request
    tensors: tuple[PlannedTensor, ...]
    warnings: tuple[str, ...]
    extra: tuple[PlannedTensor, ...] = ()
    mmproj: str | None = None
    generated: tuple[Constant, ...] = ()
    drafter: Plan | None = None
    notes: tuple[str, ...] = ()
    matrix: Matrix | None = None
    matrix_file: bytes | None = None

    @property
    def recipe(self) -> Recipe:
        """Types and methods that were requested."""
        return self.request.recipe

    @property
    def key(self) -> tuple[str, str]:
        """Container and type, which tell it from the other plans of a run."""
        return self.format, self.label

    @property
    def own(self) -> tuple[PlannedTensor, ...]:
        """All tensors of the source that are written, without those of a drafter."""
        return (*self.tensors, *self.extra)

    @property
    def everything(self) -> tuple[PlannedTensor, ...]:
        """All tensors that are written."""
        return (*self.own, *(self.drafter.everything if self.drafter is not None else ()))

    @property
    def constants(self) -> tuple[Constant, ...]:
        """All tensors that are written and that no checkpoint has."""
        return (*self.generated, *(self.drafter.constants if self.drafter is not None else ()))

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the text model's tensors, without headers and padding."""
        return sum(tensor.nbytes for tensor in self.tensors) + sum(len(array.data) for array in self.generated)

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
