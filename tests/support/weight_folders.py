"""Folders with weight files in every state that tools leave them in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from damage import SMALL, small_model
from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.rows import weights as read
from gemmaq.files.span import Reader
from synthetic import weights, write_safetensors

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
Tensors = Mapping[str, np.ndarray]


def made(seed: int = 0) -> dict[str, np.ndarray]:
    """BF16 bits of the tensors of a small model by their canonical names."""
    return dict(weights(SMALL, seed))


def save(path: Path, tensors: Tensors) -> None:
    """A safetensors file of BF16 tensors."""
    shapes = {name: ("BF16", bits.shape) for name, bits in tensors.items()}
    write_safetensors(path, shapes, {name: np.ascontiguousarray(bits) for name, bits in tensors.items()})


def shard_names(count: int, stem: str = "model", ending: str = ".safetensors") -> list[str]:
    """Names of shards."""
    return [f"{stem}-{n:05}-of-{count:05}{ending}" for n in range(1, count + 1)]


def split(tensors: Tensors, names: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """Tensors by file, shared out evenly in their order."""
    parts = np.array_split(np.array(list(tensors), dtype=object), len(names))
    return {file: {str(name): tensors[name] for name in part} for file, part in zip(names, parts, strict=True)}


def save_shards(folder: Path, tensors: Tensors, count: int, *, index: bool = True, stem: str = "model") -> list[str]:
    """Shards of a model, with their index; their names."""
    files = split(tensors, shard_names(count, stem))
    for file, part in files.items():
        save(folder / file, part)
    if index:
        write_index(folder, {name: file for file, part in files.items() for name in part})
    return list(files)


def write_index(folder: Path, places: Mapping[str, str], name: str = INDEX) -> None:
    """An index: tensor -> file."""
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": dict(places)}))


def bare_folder(folder: Path) -> Path:
    """A small model without weights."""
    small_model(folder)
    (folder / WHOLE).unlink()
    return folder


def holds(checkpoint: Checkpoint, tensors: Tensors) -> bool:
    """Whether a model has exactly these weights, by canonical names."""
    with Reader() as reader:
        return list(checkpoint.tensors) == list(tensors) and all(
            np.array_equal(
                read(checkpoint.tensors[name], 0, checkpoint.tensors[name].rows, reader).reshape(bits.shape),
                (bits.astype(np.uint32) << 16).view(np.float32),
            )
            for name, bits in tensors.items()
        )
