"""A model on disk: folders and GGUF files give the same `Checkpoint`, whose tensors are read from disk on demand."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gemmaq.checkpoint.part import GAPS as GAPS
from gemmaq.checkpoint.part import Part as Part
from gemmaq.encodings import Encoding
from gemmaq.errors import InputError
from gemmaq.files.runs import Run
from gemmaq.files.span import FileSpan, Reader
from gemmaq.files.strided import Strided
from gemmaq.models.arrangements import Arrangement
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family
from gemmaq.models.roles import NOWHERE, Place, Role
from gemmaq.models.towers_config import TowersConfig

if TYPE_CHECKING:
    from gemmaq.checkpoint.tokenizer import Tokenizer, TokenizerFiles
    from gemmaq.encodings import Values


class Decoder(Protocol):
    """Reads rows of a tensor whose arrays have another order than its rows, or other numbers than a type of gemmaq."""

    def values(self, reader: Reader, first: int, count: int) -> Values:
        """Rows `first` to `first + count`: codes with their scales, or weights, f32 [count, columns].

        Raises:
            InputError: The file ends early or cannot be read, or contradicts itself.
        """
        ...


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor on disk.

    Attributes:
        name: Canonical name (see `models.family.Names`).
        shape: Shape in torch's order, rows first.
        encoding: Encoding of its weights.
        parts: The arrays it is stored in.
        layout: Layout of the parts: `plain` (one array of the encoding's blocks), `mlx` (words, scales, biases),
            `compressed-tensors` (words, scales) or `decoded` (a decoder reads them).
        shift: Added to the decoded weights (-1 for norms of a GGUF file that stores 1 + w).
        arrangement: How the file stores its numbers, None for as they are; the shape stays torch's.
        place: Role, layer and part in the model.
        divisor: What stored scales of one byte are divided by.
        decoder: Reads rows of other programs' layouts; the parts then only say which files, and about how many bytes.
        stored_bytes: Bytes on disk where there is a decoder.
        stored_name: Name in the file, of the first of its arrays; empty for a tensor that was put together.
    """

    name: str
    shape: tuple[int, ...]
    encoding: Encoding
    parts: tuple[Part, ...]
    layout: str = "plain"
    shift: float = 0.0
    arrangement: Arrangement | None = None
    place: Place = NOWHERE
    divisor: float = 1.0
    decoder: Decoder | None = None
    stored_bytes: int = 0
    stored_name: str = field(default="", compare=False)

    @property
    def spelled(self) -> str:
        """Its name in messages: as it is in the file."""
        return self.stored_name or self.name

    @property
    def span(self) -> FileSpan:
        """File of the first part."""
        return self.parts[0].span

    @property
    def columns(self) -> int:
        """Weights of a row."""
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        """Number of rows; 1 for a vector."""
        return self.elements // self.columns

    @property
    def matrices(self) -> int:
        """Number of matrices, whose inputs differ: those of a stack of experts, else 1."""
        return self.shape[0] if self.place.role is Role.EXPERTS else 1

    @property
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def mixes_rows(self) -> bool:
        """Whether the file stores numbers of a row in other rows."""
        return self.arrangement is not None and self.arrangement.mixes(self.rows)

    @property
    def moved(self) -> bool:
        """Whether the file stores its numbers in another order, or other numbers."""
        return self.arrangement is not None and self.arrangement.moves

    @property
    def row_bytes(self) -> int:
        """Bytes of a row on disk, all parts together."""
        return sum(part.row_bytes for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self.stored_bytes or self.rows * self.row_bytes


def spans_of(tensors: Iterable[Tensor]) -> tuple[FileSpan, ...]:
    """Files that hold tensors, each once."""
    return tuple(dict.fromkeys(span for tensor in tensors for part in tensor.parts for span in part.spans))


def paths_of(tensors: Iterable[Tensor]) -> tuple[Path, ...]:
    """Paths of the files that hold tensors, each once."""
    return tuple(dict.fromkeys(path for span in spans_of(tensors) for path in span.paths))


def plain(
    name: str,
    shape: tuple[int, ...],
    encoding: Encoding,
    *,
    span: FileSpan,
    offset: int,
    shift: float = 0.0,
    place: Place = NOWHERE,
    strides: tuple[int, ...] | None = None,
    stored_name: str = "",
) -> Tensor:
    """A tensor that is stored in one array of the encoding's own blocks.

    Arguments are as the attributes of `Tensor`; `strides` as those of `safetensors_header.Entry`, for floats alone.
    """
    row_bytes = encoding.row_bytes(shape[-1] if shape else 1)
    part = Part(span, offset, row_bytes)
    if strides is not None:
        whole = Run(0, math.prod(shape[:-1]), offset, span, strided=Strided(shape, strides, row_bytes // shape[-1]))
        part = Part(span, offset, row_bytes, scattered=(whole,))
    return Tensor(name, shape, encoding, (part,), shift=shift, place=place, stored_name=stored_name)


@dataclass(frozen=True, slots=True)
class Embedder:
    """What sentence-transformers puts behind a text model that embeds.

    Attributes:
        pooling: How vectors of tokens become one (`mean`, `cls`, `last`), None if it is not known.
        heads: Matrices that the pooled vector is multiplied with, by canonical name.
        files: Path within the model's folder -> file, to be copied.
    """

    pooling: str | None = None
    heads: Mapping[str, Tensor] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that is merged into a model while the model is read.

    Attributes:
        kind: What it is, for people: `LoRA` or `DoRA`.
        rank: Largest rank of its matrices, 0 if it has none.
        changed: Number of the model's tensors that it changes.
        weights: Its own tensors, as its file names them.
        config: Its adapter_config.json.
        base: The model without it.
    """

    kind: str
    rank: int
    changed: int
    weights: tuple[Tensor, ...]
    config: Path
    base: Checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk, whatever its family and the format it is stored in.

    Attributes:
        name: Name of the model, from its folder, repository or file.
        location: SOURCE as the user typed it.
        format: `safetensors`, `gguf`, `mlx` or `compressed-tensors`.
        family: Its model family.
        config: Dimensions of the text model.
        tensors: Text tensors by canonical name, in the order of the family's `names.shapes`; an untied head last.
        tokenizer_files: Files that the tokenizer is read from.
        idle: Text tensors that some runtimes demand and none uses, by canonical name.
        towers: Tensors of the towers by canonical name, as far as they are present.
        towers_config: Dimensions of the towers, None for a text-only model.
        towers_error: Why towers that are there cannot be read, None if they can or there are none.
        processor_files: Files of the processor of images and sound, to be copied.
        embedder: Modules behind a text model that embeds, None for a model that continues texts.
        drafter: Drafter that proposes tokens for the model, None for none.
        generation: Content of generation_config.json, or the sampling keys of a GGUF file under the same names.
        card: Metadata of the model card: `license`, `base_model`, `tags`, `language`.
        notes: Oddities found on opening, one sentence each.
        losses: What gemmaq leaves out of such a model whatever the user asks for, one sentence each.
        weights_here: Whether the weights can be read; False if only the headers of a repository were fetched.
        untied: Whether config.json says that the head is no copy of the embedding, even where both are equal.
        adapter: The adapter that is merged while weights are read, None for none.
    """

    name: str
    location: str
    format: str
    family: Family
    config: TextConfig
    tensors: Mapping[str, Tensor]
    tokenizer_files: TokenizerFiles
    idle: Mapping[str, Tensor] = field(default_factory=dict)
    towers: Mapping[str, Tensor] = field(default_factory=dict)
    towers_config: TowersConfig | None = None
    towers_error: InputError | None = None
    processor_files: tuple[Path, ...] = ()
    embedder: Embedder | None = None
    drafter: Checkpoint | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    weights_here: bool = True
    untied: bool = False
    adapter: Adapter | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """All that a user should know of the source: losses, then notes."""
        return (*self.losses, *self.notes)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, read on first use.

        Raises:
            InputError: It is missing or belongs to another family.
        """
        return self.tokenizer_files.read(self.config, self.location)

    def check_tokenizer(self, *, copied: bool) -> None:
        """Read the tokenizer.

        Args:
            copied: Whether its files are copied, so that those beside what is read have to be sound as well.

        Raises:
            InputError: It is missing, broken, or belongs to another family.
        """
        _ = self.tokenizer
        if copied:
            self.tokenizer_files.check()

    @property
    def embedding(self) -> Tensor:
        """The token embedding."""
        return self.tensors[self.family.names.EMBEDDING]

    @property
    def head(self) -> Tensor | None:
        """The output head, None where the embedding serves as head (a tied head)."""
        return self.tensors.get(self.family.names.HEAD)

    @property
    def final_norm(self) -> Tensor:
        """The norm behind the last layer."""
        return self.tensors[self.family.names.FINAL_NORM]

    @property
    def matrices(self) -> dict[str, Tensor]:
        """The matrices of the decoder layers, which are multiplied with activations, by canonical name."""
        return {name: tensor for name, tensor in self.tensors.items() if tensor.place.role.is_layer_matrix}

    def layer(self, index: int) -> dict[str, Tensor]:
        """The tensors of a decoder layer by their part."""
        return {tensor.place.part: tensor for tensor in self.tensors.values() if tensor.place.layer == index}

    def position(self, tensor: Tensor) -> tuple[int, int]:
        """Index of a layer's tensor among all of its kind, and their number: not every layer has one."""
        kind = tensor.place.kind
        layers = self._layers_of[kind]
        return bisect_left(layers, tensor.place.layer or 0), len(layers)

    @cached_property
    def _layers_of(self) -> dict[str, list[int]]:
        """Kind of tensor -> the layers that have one, in order."""
        found: dict[str, list[int]] = {}
        for tensor in (*self.tensors.values(), *self.idle.values()):
            if tensor.place.layer is not None:
                found.setdefault(tensor.place.kind, []).append(tensor.place.layer)
        return {kind: sorted(layers) for kind, layers in found.items()}

    @property
    def body(self) -> Encoding:
        """Encoding of most bytes of the layer matrices."""
        sizes: Counter[Encoding] = Counter()
        for tensor in self.matrices.values():
            sizes[tensor.encoding] += tensor.nbytes
        return sizes.most_common(1)[0][0]

    @property
    def parameters(self) -> int:
        """Number of weights of the text model, a tied embedding counted once."""
        return sum(tensor.elements for tensor in self.tensors.values())

    @property
    def towers_bytes(self) -> int:
        """Bytes of the towers on disk."""
        return sum(tensor.nbytes for tensor in self.towers.values())

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that hold the weights, those of a drafter last."""
        own = paths_of((*self.tensors.values(), *self.towers.values()))
        return (*own, *(self.drafter.files if self.drafter is not None else ()))
