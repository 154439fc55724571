"""What the rest of gemmaq asks a model family: one `Family` value, whose parts are modules of the family's package.

A family is a folder of `models/` with these modules; its `__init__` puts them together as FAMILY.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gemmaq.models.config import TextConfig
from gemmaq.models.published import PublishedMemory
from gemmaq.models.roles import Place
from gemmaq.models.size import Size
from gemmaq.models.vision_config import VisionConfig

Shapes = Iterator[tuple[str, tuple[int, ...]]]
"""Canonical names and shapes (rows first), in the order in which files are written."""


class Names(Protocol):
    """Tensor names of the text model; the canonical name is that of the text-only Hugging Face layout."""

    EMBEDDING: str
    HEAD: str
    FINAL_NORM: str
    KINDS: tuple[str, ...]
    """Kinds of tensors (`Place.kind`) in the order of a table."""

    def canonical(self, name: str, /) -> str | None:
        """Canonical name of a Hugging Face tensor, None for one outside the text model."""

    def to_gguf(self, name: str, /) -> str:
        """GGUF name of a canonical name."""

    def from_gguf(self, name: str, /) -> str | None:
        """Canonical name of a GGUF tensor, None if the family has no such tensor."""

    def in_layer(self, layer: int, part: str, /) -> str:
        """Canonical name of a decoder layer's tensor."""

    def input_sites(self, config: Any, layer: int, /) -> Mapping[str, tuple[str, ...]]:
        """Parts of a layer that share an input, keyed by the first of them; calibration watches the key's input."""

    def place(self, name: str, /) -> Place:
        """Place of a canonical name in the model: its role, and its layer and part."""

    def shapes(self, config: Any, /) -> Shapes:
        """Every tensor of a text model with a tied head."""


class Configs(Protocol):
    """config.json of the family."""

    MODEL_TYPE: str
    TEXT_MODEL_TYPE: str
    """Hugging Face model types with and without a vision side."""

    def from_hf(self, document: Mapping[str, Any], /) -> TextConfig:
        """Read the text side of a config.json; raises InputError."""

    def to_hf(self, config: Any, dtype: str, /) -> dict[str, Any]:
        """config.json of a text-only folder; dtype is torch's name of the stored weights."""

    def with_vision(self, document: dict[str, Any], config: Any, vision: VisionConfig, /) -> dict[str, Any]:
        """config.json of a model with vision, from that of its text side."""

    def with_vocabulary(self, config: Any, size: int, /) -> TextConfig:
        """The config with another number of embedding rows."""


class GGUFKeys(Protocol):
    """Metadata keys of GGUF files."""

    ARCHITECTURE: str
    NORM_SHIFT: float
    """Added to norm weights in GGUF files: llama.cpp multiplies with what is stored."""

    def from_config(self, config: Any, /) -> Mapping[str, Any]:
        """Keys of a model, without the architecture as prefix; raises InputError."""

    def to_config(self, keys: Mapping[str, Any], vocab_size: int, /) -> TextConfig:
        """Config of a model from all keys of its file; raises InputError."""

    def from_vision(self, config: VisionConfig, text_hidden: int, /) -> dict[str, Any]:
        """Keys of an mmproj file, with prefix."""

    def to_vision(self, keys: Mapping[str, Any], /) -> VisionConfig:
        """Vision config of an mmproj file; raises InputError."""


class Vision(Protocol):
    """The vision side of the family: tower and projector."""

    DEFAULT: VisionConfig
    """Dimensions that the published models have."""
    MODULES: tuple[str, ...]
    """Modules of the vision side, by the beginning of their names."""

    def from_hf(self, config: Mapping[str, Any], preprocessor: Mapping[str, Any], /) -> VisionConfig:
        """Read config.json and preprocessor_config.json; raises InputError."""

    def processor_files(self, config: VisionConfig, /) -> dict[str, dict[str, Any]]:
        """Content of the image processor's files by file name."""

    def canonical(self, name: str, /) -> str | None:
        """Canonical name of a vision tensor, None for one that is not needed."""

    def to_gguf(self, name: str, /) -> str:
        """Name in an mmproj file."""

    def from_gguf(self, name: str, /) -> str | None:
        """Canonical name of a tensor of an mmproj file, None if unknown."""

    def shapes(self, config: VisionConfig, text_hidden: int, /) -> Shapes:
        """Every tensor of the vision side."""

    def is_norm(self, name: str, /) -> bool:
        """Whether a tensor is an RMS norm, which GGUF stores shifted like those of the text model."""

    def is_patch_kernel(self, name: str, /) -> bool:
        """Whether a tensor is the convolution over patches, whose axes MLX has in another order."""

    def mmproj_type(self, name: str, dimensions: int, requested: str, /) -> str:
        """Type of a tensor in an mmproj file for the type that was requested."""

    def mmproj_bytes(self, text_hidden: int, config: VisionConfig, /) -> int:
        """Bytes of the tensors of an F16 mmproj file."""


class Vocabulary(Protocol):
    """Layout of the family's vocabulary."""

    SPECIAL: frozenset[str]
    """Tokens that tokenizer.json marks special."""
    IMAGE_ROLES: Mapping[str, str]
    """Role of an image token in tokenizer_config.json -> token."""
    TOKENIZER_CLASS: str
    """Hugging Face class that loads the tokenizer."""
    UNKNOWN_ID: int
    """Id of the token for unknown text."""
    GGUF_MODEL: str
    GGUF_PRE: str
    """GGUF keys tokenizer.ggml.model and tokenizer.ggml.pre."""

    def is_ours(self, vocabulary: Mapping[str, int], /) -> bool:
        """Whether pieces (piece -> id) are laid out like the family's."""

    def score(self, token_id: int, /) -> float:
        """SentencePiece score of a base piece."""

    def is_byte(self, token_id: int, /) -> bool:
        """Whether an id of the base vocabulary stands for a byte."""

    def looks_special(self, text: str, /) -> bool:
        """Whether a token that was added as ordinary text controls the model all the same."""


class Modules(Protocol):
    """The family's layers in transformers; every function imports torch and transformers."""

    def hf_config(self, config: Any, /) -> Any:
        """The configuration object of transformers, for float32 and fused attention."""

    def decoder_layer(self, hf_config: Any, index: int, /) -> Any:
        """A decoder layer, a torch module with unset weights."""

    def rotary_embedding(self, hf_config: Any, /) -> Any:
        """The rotary embedding, called with (hidden, positions, attention kind)."""

    def attention_kinds(self, hf_config: Any, /) -> tuple[str, ...]:
        """Kind of attention of every layer."""

    def attention_mask(self, hf_config: Any, kind: str, hidden: Any, positions: Any, /) -> Any:
        """Mask of a kind of attention for sequences without padding, hidden f32 [batch, length, hidden]."""

    def rms_norm(self, hidden: Any, weight: Any, epsilon: float, /) -> Any:
        """RMS norm of f32 [..., hidden] with the weight as Hugging Face stores it."""

    def embedding_scale(self, config: Any, /) -> float:
        """Factor of the embedding's rows at the model's input."""


@dataclass(frozen=True, slots=True)
class License:
    """License of the family.

    Attributes:
        name: As model cards spell it (`gemma`, `apache-2.0`).
        link: Address of its text.
        notice: Sentence that artifacts carry.
    """

    name: str
    link: str
    notice: str


@dataclass(frozen=True, slots=True)
class Chat:
    """How the family chats.

    Attributes:
        stop: Text of the token that ends a turn.
        sampling: The publisher's sampling settings, by the names of generation_config.json.
        templates: SHA-256 of the published Jinja templates.
        go_template: The same turns in Go's template language, for Ollama.
    """

    stop: str
    sampling: Mapping[str, float]
    templates: frozenset[str]
    go_template: str


@dataclass(frozen=True, slots=True)
class Family:
    """Everything that is known of a family of models.

    Attributes:
        name: Short name, also a tag of model cards (`gemma3`).
        title: Name for people (`Gemma 3`).
        architectures: Class names and model types of config.json that the family reads.
        names: Tensor names and roles.
        configs: config.json.
        gguf: GGUF metadata.
        vision: Vision side, for models that have one.
        vocabulary: Vocabulary.
        modules: Layers in transformers.
        chat: Turns, sampling and templates.
        license: License.
        sizes: Published sizes.
        official: Regular expression of the publisher's repository names.
        organization: The publisher's organization on the Hub.
        published: The publisher's memory figures, None if there are none.
    """

    name: str
    title: str
    architectures: tuple[str, ...]
    names: Names
    configs: Configs
    gguf: GGUFKeys
    vision: Vision
    vocabulary: Vocabulary
    modules: Modules
    chat: Chat
    license: License
    sizes: tuple[Size, ...]
    official: str
    organization: str
    published: PublishedMemory | None = None
