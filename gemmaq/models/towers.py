"""What a family provides about its towers: everything that turns images or sound into embeddings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from gemmaq.models.arrangements import Arrangement
from gemmaq.models.roles import Place
from gemmaq.models.towers_config import TowersConfig

Shapes = Iterator[tuple[str, tuple[int, ...]]]
"""Canonical names and shapes (rows first), in the order in which files are written."""


class Towers(Protocol):
    """The towers of the family: everything that turns images or sound into embeddings, projectors included.

    The canonical name of a tensor is that of MLX's folders: without `model.` before it.
    """

    MODULES: tuple[str, ...]
    """Modules of the towers, by the beginning of their names."""
    REPEATS_HEAD: bool
    """Whether MLX's runtimes want the output head of a model with towers in its file, though it is the embedding."""

    def from_hf(self, config: Mapping[str, Any], preprocessor: Mapping[str, Any], /) -> TowersConfig:
        """Read config.json and the settings of the processor; raises InputError."""

    def with_towers(self, document: dict[str, Any], config: Any, towers: Any, /) -> dict[str, Any]:
        """config.json of a model with towers, from that of its text side."""

    def processor_files(self, towers: Any, /) -> dict[str, dict[str, Any]]:
        """Content of the processor's files by file name."""

    def to_keys(self, towers: Any, text_hidden: int, /) -> dict[str, Any]:
        """Keys of an mmproj file, with prefix."""

    def from_keys(
        self, keys: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], pieces: Sequence[str], /
    ) -> TowersConfig:
        """Config from an mmproj file, its keys and the shapes of its tensors by name; raises InputError.

        `pieces` are the vocabulary of the text model.
        """

    def built_in(self, keys: Mapping[str, Any], names: Collection[str], /) -> tuple[dict[str, Any], dict[str, str]]:
        """Towers in the model's own file, as Ollama's converter writes them, empty if there are none.

        Args:
            keys: Keys of the model's file.
            names: Names of its tensors.

        Returns:
            Keys of an mmproj file with these towers, and name in the model's file -> name in an mmproj file.
        """

    def markers(self, towers: Any, /) -> tuple[str, ...]:
        """Tokens before and behind an image or a sound, which a model needs in its vocabulary."""

    def shapes(self, towers: Any, text_hidden: int, /) -> Shapes:
        """Every tensor of the towers."""

    def place(self, name: str, /) -> Place:
        """Place of a tensor in the model."""

    def canonical(self, name: str, /) -> str | None:
        """Canonical name of a Hugging Face tensor, None for one that is not needed."""

    def to_hf(self, name: str, /) -> str:
        """Name in a folder that transformers loads."""

    def to_gguf(self, name: str, /) -> str:
        """Name in an mmproj file."""

    def in_gguf(self, name: str, shape: tuple[int, ...], /) -> Arrangement | None:
        """How an mmproj file stores a tensor, None for as it is."""

    def channels_last(self, name: str, shape: tuple[int, ...], /) -> Arrangement | None:
        """How MLX stores a convolution, None for a tensor that is stored as it is."""

    def is_norm(self, name: str, /) -> bool:
        """Whether a tensor is an RMS norm that GGUF stores shifted like those of the text model."""

    def mmproj_type(self, name: str, shape: tuple[int, ...], requested: str, /) -> str:
        """Type of a tensor in an mmproj file for the type that was requested, where the type can hold its rows."""
