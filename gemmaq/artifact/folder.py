"""What lies where in the folder of an artifact, or of several in folders of their own."""

from __future__ import annotations

from pathlib import Path

from gemmaq.files.names import is_mmproj

PARTS = ("gguf", "mlx", "safetensors")
"""Folders of the containers where a run made several."""

_NOT_OURS = (".cache/huggingface/", ".git/")
"""What fetching and publishing leave in a folder."""
_NOT_OUR_FILES = (".gitattributes", ".gitignore")


def has_model(folder: Path) -> bool:
    """Whether a model lies in a folder itself."""
    return (folder / "config.json").is_file() or any(not is_mmproj(path.name) for path in folder.glob("*.gguf"))


def models_in(folder: Path) -> list[Path]:
    """Where the models of an artifact lie: the folder itself, or those of its containers."""
    return [folder] if has_model(folder) else [folder / part for part in PARTS if has_model(folder / part)]


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file or a folder it lies in is hidden."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def is_left_behind(name: str) -> bool:
    """Whether a path within the folder is the record that the Hub's tools or git keep there."""
    return name.startswith(_NOT_OURS) or name in _NOT_OUR_FILES
