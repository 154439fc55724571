"""Reading: a safetensors folder and a GGUF file give the same Checkpoint, tensors left where they lie."""

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
        span: the file.
        offset: of its first byte.
        row_bytes: bytes of a row.
        dtype: safetensors name of its numbers, where its layout leaves that open.
    """

    span: FileSpan
    offset: int
    row_bytes: int
    dtype: str = "U8"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as it lies on disk.

    Attributes:
        name: canonical Hugging Face name.
        shape: rows first, as torch has it.
        encoding: what its codes mean.
        parts: the arrays it is stored in.
        layout: how the parts hold it: `plain` (one array, the encoding's own blocks), `mlx` (words, scales, biases) or
            `compressed-tensors` (words, scales).
        shift: what is to be added to the decoded weights (-1 for the norms of a GGUF file).
        channels_last: whether the kernels of a convolution lie with their channels last, as MLX has them; the shape
            is torch's all the same.
        place: Its role in the model, with layer and part.
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
        """The file of the first part."""
        return self.parts[0].span

    @property
    def columns(self) -> int:
        """Weights a row."""
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        """Rows; 1 for a vector."""
        return self.elements // self.columns

    @property
    def elements(self) -> int:
        """Weights in all."""
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as stored, all parts together."""
        return sum(part.row_bytes for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes as stored."""
        return self.rows * self.row_bytes


def plain(
    name: str, shape: tuple[int, ...], encoding: Encoding, span: FileSpan, offset: int, shift: float = 0.0
) -> Tensor:
    """A tensor stored in one array, in the encoding's own blocks."""
    row_bytes = encoding.row_bytes(shape[-1] if shape else 1)
    return Tensor(name, shape, encoding, (Part(span, offset, row_bytes),), shift=shift)


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk, whatever its family and the format it is stored in.

    Attributes:
        name: what the model is called (`gemma-3-4b-it-qat-q4_0-unquantized`), from the folder, repo or file.
        location: where it is, as the user said it.
        format: `safetensors`, `gguf`, `mlx` or `compressed-tensors`.
        family: The family it belongs to.
        config: its dimensions.
        tensors: the text tensors by canonical name, in the order of the family's `names.shapes`, an untied head last.
        vision: the tensors of the vision side by canonical name, as far as they are there.
        vision_config: its dimensions, None for a text model.
        processor_files: of its image processor, to be copied.
        generation: generation_config.json, or what a GGUF file says of sampling.
        card: metadata of the model card: `license`, `base_model`, `tags`, `language`.
        tokenizer_files: where the tokenizer is to be read from.
        notes: oddities found on opening, a sentence each.
        weights_here: whether the weights can be read; of a repository only the headers were fetched.
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
            InputError: it is missing or is not of the model's family.
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

    def layer(self, index: int) -> dict[str, Tensor]:
        """The tensors of a decoder layer by their part."""
        return {tensor.place.part: tensor for tensor in self.tensors.values() if tensor.place.layer == index}

    @property
    def body(self) -> Encoding:
        """The encoding that most bytes of the layers' matrices are in."""
        sizes: Counter[Encoding] = Counter()
        for tensor in self.tensors.values():
            if tensor.place.role.is_layer_matrix:
                sizes[tensor.encoding] += tensor.nbytes
        return sizes.most_common(1)[0][0]

    @property
    def parameters(self) -> int:
        """Weights of the text model, the tied embedding counted once."""
        return sum(tensor.elements for tensor in self.tensors.values())

    @property
    def vision_bytes(self) -> int:
        """Bytes of the vision side as stored."""
        return sum(tensor.nbytes for tensor in self.vision.values())

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files."""
        tensors = (*self.tensors.values(), *self.vision.values())
        return tuple(dict.fromkeys(path for tensor in tensors for part in tensor.parts for path in part.span.paths))
