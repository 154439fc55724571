"""The folder of an artifact, or of several in subfolders named after their containers and types."""

from __future__ import annotations

from pathlib import Path

from gemmaq.files.names import models_among
from gemmaq.planning.containers import CONTAINERS
from gemmaq.planning.recipe import TYPES

_TOOL_FOLDERS = (".cache/huggingface/", ".git/")
"""Folders that the Hub's tools and git leave in an artifact."""
_TOOL_FILES = (".gitattributes", ".gitignore")


def has_model(folder: Path) -> bool:
    """Whether the folder itself holds a model."""
    return (folder / "config.json").is_file() or bool(models_among(path.name for path in folder.glob("*.gguf")))


def parts_of(folder: Path) -> list[str]:
    """Names of the subfolders of a conversion to several containers or types: `mlx`, `q4_0` or `mlx/q4_0`."""
    found = []
    for name in [*CONTAINERS, *TYPES]:
        if (folder / name).is_dir():
            types = [f"{name}/{kind}" for kind in TYPES if name in CONTAINERS and (folder / name / kind).is_dir()]
            found += types if types and not has_model(folder / name) else [name]
    return found


def models_in(folder: Path) -> list[Path]:
    """The folders that hold the models: the folder itself, or its subfolders."""
    return [folder] if has_model(folder) else [folder / part for part in parts_of(folder) if has_model(folder / part)]


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether the file, or a folder between it and `folder`, is hidden."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def is_left_behind(name: str) -> bool:
    """Whether a path within the folder belongs to the Hub's tools or to git rather than to the artifact."""
    return name.startswith(_TOOL_FOLDERS) or name in _TOOL_FILES
