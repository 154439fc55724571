"""What the rest of gemmaq asks a model family: one `Family` value, whose parts are modules of the family's package.

A family is a folder of `models/` with these modules; its `__init__` puts them together as FAMILY.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gemmaq.models.config import TextConfig
from gemmaq.models.config_keys import ConfigKeys
from gemmaq.models.layers import Modules
from gemmaq.models.published import PublishedMemory
from gemmaq.models.roles import Place
from gemmaq.models.size import Size
from gemmaq.models.slices import Slice
from gemmaq.models.towers import Shapes, Towers


class Names(Protocol):
    """Tensor names of the text model; the canonical name is that of the text-only Hugging Face layout."""

    EMBEDDING: str
    HEAD: str
    FINAL_NORM: str
    KINDS: tuple[str, ...]
    """Kinds of tensors (`Place.kind`) in the order of a table."""

    def canonical(self, name: str, /) -> str | None:
        """Canonical name of a Hugging Face tensor, None for one outside the text model."""

    def nested(self, name: str, /) -> str:
        """Name of a canonical name in the layout of models with towers, as MLX has it."""

    def nested_hf(self, name: str, /) -> str:
        """Name of a canonical name in a folder of a model with towers that transformers loads."""

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

    def slices(self, name: str, shape: tuple[int, ...], /, *, per_expert: bool) -> tuple[Slice, ...]:
        """Tensors that other layouts store for a stack: smaller stacks, or its matrices.

        Empty for a tensor that every layout stores as it is.
        """

    def is_surplus(self, name: str, config: Any, /) -> bool:
        """Whether a checkpoint may have a tensor that `shapes` lacks, which no runtime reads."""

    def idle(self, config: Any, /) -> Mapping[str, str]:
        """Tensors beyond `shapes` that some runtimes demand and none uses -> those that stand in for missing ones."""


class Configs(Protocol):
    """config.json of the family."""

    MODEL_TYPE: str
    TEXT_MODEL_TYPE: str
    """Hugging Face model types with and without towers."""

    KEYS: ConfigKeys
    """What becomes of every key of its text side."""

    def from_hf(self, document: Mapping[str, Any], /) -> TextConfig:
        """Read the text side of a config.json; raises InputError."""

    def to_hf(self, config: Any, dtype: str, /) -> dict[str, Any]:
        """config.json of a text-only folder; dtype is torch's name of the stored weights."""

    def check_mlx(self, config: Any, /) -> None:
        """Refuse a model that MLX's runtimes would compute otherwise; raises InputError."""

    NESTED: bool
    """Whether MLX's runtimes load a text-only model in the layout of models with towers, too."""

    def nested(self, document: dict[str, Any], /) -> dict[str, Any]:
        """config.json in the layout of models with towers, from that of a text-only folder."""

    def with_vocabulary(self, config: Any, size: int, /) -> TextConfig:
        """The config with another number of embedding rows."""


class GGUFKeys(Protocol):
    """Metadata keys of GGUF files."""

    ARCHITECTURE: str
    NORM_SHIFT: float
    """Added to norm weights in GGUF files: llama.cpp multiplies with what is stored."""

    def from_config(self, config: Any, /) -> Mapping[str, Any]:
        """Keys of a model, without the architecture as prefix; raises InputError."""

    def to_config(self, keys: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], /) -> TextConfig:
        """Config of a model from all keys of its file and the shapes of its tensors by GGUF name; raises InputError."""

    def generated(self, config: Any, /) -> Mapping[str, NDArray[np.float32]]:
        """Tensors by GGUF name that llama.cpp wants and no checkpoint has, f32."""


class Vocabulary(Protocol):
    """Layout of the family's vocabulary."""

    TOKENIZER_CLASS: str
    """Hugging Face class that loads the tokenizer."""
    UNKNOWN_ID: int
    """Id of the token for unknown text."""
    GGUF_MODEL: str
    GGUF_PRE: str | None
    """GGUF keys tokenizer.ggml.model and tokenizer.ggml.pre, the latter None for no such key."""
    MERGES: bool
    """Whether the merges of tokenizer.json say which pieces are joined, not the scores of tokenizer.model."""
    ADDS: Mapping[str, bool]
    """Role of a token -> whether an encoder adds it, where a file does not say; GGUF files say it of these roles."""
    ALWAYS_BOS: bool
    """Whether llama.cpp begins every text with BOS, whatever the file says."""
    TEMPLATE_FILE: bool
    """Whether the chat template is a file of its own (chat_template.jinja), not a key of tokenizer_config.json."""

    def is_ours(self, vocabulary: Mapping[str, int], /) -> bool:
        """Whether pieces (piece -> id) are laid out like the family's."""

    CONTROLS: Mapping[str, int]
    """Text of a special token -> its type in a GGUF file (SentencePiece's numbers)."""

    def is_trimmed(self, vocabulary: Mapping[str, int], /) -> bool:
        """Whether pieces (piece -> id) are a part of the family's vocabulary under other ids, as trimming leaves."""

    def score(self, token_id: int, /) -> float:
        """Score of a base piece in a GGUF file."""

    def added_type(self, text: str, *, special: bool, base: bool) -> int:
        """Type in a GGUF file (SentencePiece's numbers) of a token that tokenizer.json lists as added.

        `special` is what tokenizer.json says of it, `base` whether the base vocabulary has its id, too.
        """

    def is_special(self, text: str, kind: int, /) -> bool:
        """Whether tokenizer.json marks an added token of a type (SentencePiece's numbers) special."""

    def name_special(self, texts: Sequence[str], /) -> dict[str, Any]:
        """Keys of tokenizer_config.json that name special tokens without a usual role such as `bos`."""


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
class Turns:
    """How Ollama writes a model's turns and reads its answers: by a template, or by code of its own.

    Attributes:
        template: Go template, None where a renderer writes the turns.
        renderer: Ollama's name of the code that writes them.
        parser: Ollama's name of the code that reads thoughts and tool calls.
        always: Whether Ollama does so with every GGUF file of the architecture, whatever template the file has.
    """

    template: str | None = None
    renderer: str | None = None
    parser: str | None = None
    always: bool = False


@dataclass(frozen=True, slots=True)
class Chat:
    """How the family chats.

    Attributes:
        stop: Text of the token that ends a turn.
        sampling: The publisher's sampling settings, by the names of generation_config.json.
        templates: SHA-256 of the published Jinja templates; empty if every template with `stop` counts as one.
        ollama: Turns in Ollama of a model with a published template.
        projector_since: Version of Ollama that is the first to run the family's mmproj files reliably.
        thinking: Variable of the Jinja template that lets the model think, None for models that do not.
        tools: Whether models are trained to call tools.
    """

    stop: str
    sampling: Mapping[str, float]
    templates: frozenset[str]
    ollama: Callable[[Any], Turns]
    projector_since: str
    thinking: str | None = None
    tools: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """The models that a drafter proposes tokens for.

    Attributes:
        family: Name of their family.
        misfit: (config of a drafter, config of such a model) -> why the drafter does not belong to it, a clause of a
            sentence; None if it does.
    """

    family: str
    misfit: Callable[[Any, Any], str | None]


def architecture(document: Mapping[str, Any]) -> Any:
    """What a config.json says that it is: its class name, else its model type."""
    listed = document.get("architectures")
    return listed[0] if isinstance(listed, list) and listed else document.get("model_type")


@dataclass(frozen=True, slots=True)
class Family:
    """Everything that is known of a family of models.

    Attributes:
        name: Short name, also a tag of model cards (`gemma3`).
        title: Name for people (`Gemma 3`).
        architectures: Class names and model types of config.json that the family reads.
        marks: Flags that config.json sets for this family alone, where another family reads the same class.
        embeds: Whether models turn a text into a vector instead of continuing it.
        outside: Sentence about tensors outside the model that are left out, None for one about the towers.
        target: The models that drafters propose tokens for, None for a family whose models stand alone.
        hf_prefix: Beginning of tensor names in a folder that transformers loads, `model.` in canonical names.
        remarks: Class name or model type -> sentence about what gemmaq leaves out of such a model.
        names: Tensor names and roles.
        configs: config.json.
        gguf: GGUF metadata.
        towers: Towers, None for a family that has none or whose towers are left out.
        vocabulary: Vocabulary.
        modules: Layers in transformers.
        chat: Turns, sampling and templates, None for models that do not chat.
        license: License.
        sizes: Published sizes.
        official: Regular expression of the publisher's repository names.
        organization: The publisher's organization on the Hub.
        published: The publisher's memory figures, None if there are none.
        tables_on_grid: Whether a table that lies on the body's int4 grid was trained for it, so that it gets the body's
            type by default.
    """

    name: str
    title: str
    architectures: tuple[str, ...]
    names: Names
    configs: Configs
    gguf: GGUFKeys
    towers: Towers | None
    vocabulary: Vocabulary
    modules: Modules
    chat: Chat | None
    license: License
    sizes: tuple[Size, ...]
    official: str
    organization: str
    published: PublishedMemory | None = None
    tables_on_grid: bool = False
    marks: tuple[str, ...] = ()
    embeds: bool = False
    outside: str | None = None
    target: Target | None = None
    hf_prefix: str = "model."
    remarks: Mapping[str, str] = field(default_factory=dict)

    def to_hf(self, name: str) -> str:
        """Name of a text tensor in a folder that transformers loads."""
        inside = name.removeprefix("model.")
        return name if inside == name else self.hf_prefix + inside

    def reads(self, document: Mapping[str, Any]) -> bool:
        """Whether a config.json is one of this family's."""
        return architecture(document) in self.architectures and all(document.get(mark) for mark in self.marks)

    @property
    def drafts(self) -> bool:
        """Whether models propose tokens for another model and run beside it alone."""
        return self.target is not None

    def misfit(self, drafter: TextConfig, family: Family, config: TextConfig) -> str | None:
        """Why a drafter of this family does not belong to a model, a clause of a sentence; None if it does."""
        assert self.target is not None
        if family.name != self.target.family:
            return "that is a drafter itself" if family.drafts else f"it is not for {family.title}"
        return self.target.misfit(drafter, config)

    def remark(self, document: Mapping[str, Any]) -> str | None:
        """A sentence about what is left out of the model of a config.json, None if nothing is."""
        return self.remarks.get(str(architecture(document)))
