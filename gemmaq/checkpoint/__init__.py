"""A model on disk: folders and GGUF files give the same `Checkpoint`, whose tensors are read from disk on demand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.encodings import Encoding
from gemmaq.files.span import FileSpan
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family
from gemmaq.models.roles import NOWHERE, Place
from gemmaq.models.vision_config import VisionConfig

if TYPE_CHECKING:
    from gemmaq.checkpoint.tokenizer import Tokenizer, TokenizerFiles


@dataclass(frozen=True, slots=True)
class Part:
    """One array of a tensor on disk.

    Attributes:
        span: The file.
        offset: Offset of the first byte.
        row_bytes: Bytes of a row.
        dtype: safetensors dtype of its numbers, where the layout leaves that open.
    """

    span: FileSpan
    offset: int
    row_bytes: int
    dtype: str = "U8"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor on disk.

    Attributes:
        name: Canonical name (see `models.family.Names`).
        shape: Shape in torch's order, rows first.
        encoding: Encoding of its weights.
        parts: The arrays it is stored in.
        layout: Layout of the parts: `plain` (one array of the encoding's blocks), `mlx` (words, scales, biases) or
            `compressed-tensors` (words, scales).
        shift: Added to the decoded weights (-1 for norms of a GGUF file that stores 1 + w).
        channels_last: Whether the kernels of a convolution are stored with their channels last, as MLX does; the shape
            stays torch's.
        place: Role, layer and part in the model.
    """

    name: str
    shape: tuple[int, ...]
    encoding: Encoding
    parts: tuple[Part, ...]
    layout: str = "plain"
    shift: float = 0.0
    channels_last: bool = False
    place: Place = NOWHERE

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
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row on disk, all parts together."""
        return sum(part.row_bytes for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self.rows * self.row_bytes


def plain(
    name: str,
    shape: tuple[int, ...],
    encoding: Encoding,
    *,
    span: FileSpan,
    offset: int,
    shift: float = 0.0,
    place: Place = NOWHERE,
) -> Tensor:
    """A tensor that is stored in one array of the encoding's own blocks; arguments as the attributes of `Tensor`."""
    row_bytes = encoding.row_bytes(shape[-1] if shape else 1)
    return Tensor(name, shape, encoding, (Part(span, offset, row_bytes),), shift=shift, place=place)


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
        vision: Tensors of the vision side by canonical name, as far as they are present.
        vision_config: Dimensions of the vision side, None for a text-only model.
        processor_files: Files of the image processor, to be copied.
        generation: Content of generation_config.json, or the sampling keys of a GGUF file under the same names.
        card: Metadata of the model card: `license`, `base_model`, `tags`, `language`.
        notes: Oddities found on opening, one sentence each.
        weights_here: Whether the weights can be read; False if only the headers of a repository were fetched.
    """

    name: str
    location: str
    format: str
    family: Family
    config: TextConfig
    tensors: Mapping[str, Tensor]
    tokenizer_files: TokenizerFiles
    vision: Mapping[str, Tensor] = field(default_factory=dict)
    vision_config: VisionConfig | None = None
    processor_files: tuple[Path, ...] = ()
    generation: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    weights_here: bool = True

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, read on first use.

        Raises:
            InputError: It is missing or belongs to another family.
        """
        return self.tokenizer_files.load(self.config)

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
    def vision_bytes(self) -> int:
        """Bytes of the vision side on disk."""
        return sum(tensor.nbytes for tensor in self.vision.values())

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that hold the weights."""
        tensors = (*self.tensors.values(), *self.vision.values())
        return tuple(dict.fromkeys(path for tensor in tensors for part in tensor.parts for path in part.span.paths))
