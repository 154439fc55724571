"""Read what sentence-transformers adds to a text model that embeds: pooling, dense heads, and their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gemmaq.checkpoint import Embedder, Tensor, plain
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError
from gemmaq.files import safetensors_header
from gemmaq.files.span import FileSpan
from gemmaq.files.text import read_json, read_list
from gemmaq.models import sentence_transformers as modules
from gemmaq.models.family import Family
from gemmaq.models.roles import Role

_WEIGHT = "linear.weight"
_FLOATS = {"BF16": "bf16", "F16": "f16", "F32": "f32"}


def of_folder(folder: Path, family: Family) -> Embedder:
    """Read the modules of a folder; one without modules.json has none.

    Raises:
        InputError: A file is unusable.
    """
    entries = read_list(folder / modules.MODULES)
    files = {name: folder / name for name in modules.FILES if (folder / name).is_file()}
    heads: dict[str, Tensor] = {}
    pooling = None
    for entry in entries:
        path, kind = str(entry.get("path", "")), modules.kind(entry)
        if not path or Path(path).name != path:
            continue
        for name in ("config.json", "model.safetensors"):
            if (folder / path / name).is_file():
                files[f"{path}/{name}"] = folder / path / name
        if kind == "Pooling":
            pooling = modules.pooling(read_json(folder / path / "config.json"))
        head = modules.head_name(path) if kind == "Dense" else None
        if head is not None and f"{path}/model.safetensors" in files:
            heads[head] = _head(head, folder / path / "model.safetensors", family)
    return Embedder(pooling, heads, files)


def _head(name: str, path: Path, family: Family) -> Tensor:
    span = FileSpan.of(path)
    entry = next((entry for entry in safetensors_header.parse(span) if entry.name == _WEIGHT), None)
    if entry is None or entry.dtype not in _FLOATS or len(entry.shape) != 2:
        raise InputError(f"holds no matrix {_WEIGHT}", path=path)
    encoding, place = ENCODINGS[_FLOATS[entry.dtype]], family.names.place(name)
    return plain(name, entry.shape, encoding, span=span, offset=entry.offset, place=place)


def of_gguf(keys: Mapping[str, Any], tensors: Iterable[Tensor], family: Family) -> Embedder:
    """The modules in the keys and among the tensors of a GGUF file; the tensors have their canonical names."""
    number = keys.get(f"{family.gguf.ARCHITECTURE}.pooling_type")
    pooling = next((name for name, at in modules.POOLING.items() if at == number), None)
    placed = ((tensor, family.names.place(tensor.name)) for tensor in tensors)
    heads = {tensor.name: replace(tensor, place=place) for tensor, place in placed if place.role is Role.DENSE}
    return Embedder(pooling, heads)
