"""Open a folder with config.json and safetensors files: Hugging Face, MLX or compressed-tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gemmaq.checkpoint import Checkpoint, Tensor, plain
from gemmaq.checkpoint.assemble import text_tensors
from gemmaq.checkpoint.quantized import quantized_tensor
from gemmaq.checkpoint.tokenizer import VERBATIM, TokenizerFiles, from_folder
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files import safetensors_header
from gemmaq.files.span import FileSpan
from gemmaq.files.text import read_card, read_json
from gemmaq.models import families
from gemmaq.models.family import Family
from gemmaq.models.roles import VISION

_INDEX = "model.safetensors.index.json"
_PREPROCESSOR = "preprocessor_config.json"
_PROCESSOR = (_PREPROCESSOR, "processor_config.json")
_ENCODINGS = {"BF16": ENCODINGS["bf16"], "F16": ENCODINGS["f16"], "F32": ENCODINGS["f32"]}


def open_folder(folder: Path, name: str, location: str) -> Checkpoint:
    """Read the config and the headers of a folder with safetensors files.

    Args:
        folder: Folder with config.json.
        name: Name of the model.
        location: SOURCE as the user typed it.

    Raises:
        NotFoundError: config.json or the weights are missing.
        InputError: A file is unusable.
    """
    document = read_json(folder / "config.json")
    kind = _kind(document, folder)
    family = families.of_config(document)
    names, config = family.names, family.configs.from_hf(document)
    entries = dict(_entries(folder))
    vision_arrays, modules = _modules(entries, family)
    shapes = dict(names.shapes(config))
    shapes[names.HEAD] = shapes[names.EMBEDDING]
    tensors = [_tensor(name, kind, arrays, shapes.get(name)) for name, arrays in modules.items()]
    text = document.get("text_config")
    if "vocab_size" not in {**document, **(text if isinstance(text, Mapping) else {})}:
        rows = [tensor.shape[0] for tensor in tensors if tensor.name == names.EMBEDDING and tensor.shape]
        config = family.configs.with_vocabulary(config, rows[0]) if rows else config
    ordered, notes = text_tensors(tensors, family, config, origin=str(folder))
    return Checkpoint(
        name=name,
        location=location,
        format=kind,
        family=family,
        config=config,
        tensors=ordered,
        vision=_vision(vision_arrays, family, folder),
        vision_config=family.vision.from_hf(document, read_json(folder / _PREPROCESSOR, {})) if vision_arrays else None,
        processor_files=tuple(folder / f for f in _PROCESSOR if (folder / f).is_file()) if vision_arrays else (),
        generation=read_json(folder / "generation_config.json", {}),
        card=read_card(folder / "README.md"),
        tokenizer_files=TokenizerFiles(
            partial(from_folder, folder, family), tuple(folder / f for f in VERBATIM if (folder / f).is_file())
        ),
        notes=notes,
    )


def _kind(document: Mapping[str, Any], folder: Path) -> str:
    """Format of the weights by config.json: `safetensors`, `mlx` or `compressed-tensors`."""
    settings = document.get("quantization_config") or {}
    if document.get("quantization"):
        return "mlx"
    if not settings:
        return "safetensors"
    method, packing = settings.get("quant_method"), settings.get("format")
    if method == "compressed-tensors" and packing == "pack-quantized":
        return "compressed-tensors"
    raise InputError(
        f"is quantized by {method} ({packing or 'no format given'}), which gemmaq cannot read",
        "use the checkpoint that it was made from",
        path=folder,
    )


_SUFFIXES = ("weight", "scales", "biases", "weight_packed", "weight_scale", "weight_shape", "weight_zero_point")
_Arrays = dict[str, tuple[FileSpan, safetensors_header.Entry]]


def _modules(entries: _Arrays, family: Family) -> tuple[_Arrays, dict[str, _Arrays]]:
    """Split arrays into those of the vision side and those of every text tensor, by suffix."""
    vision: _Arrays = {}
    modules: dict[str, _Arrays] = {}
    for entry, place in entries.items():
        module, _, suffix = entry.rpartition(".")
        whole = f"{module}.weight" if module and suffix in _SUFFIXES else entry
        name = family.names.canonical(whole)
        if name is None:
            vision[entry] = place
        elif suffix in modules.setdefault(name, {}):
            raise InputError(f"has two tensors for {name}", path=place[0])
        else:
            modules[name][suffix] = place
    return vision, modules


def _vision(arrays: _Arrays, family: Family, folder: Path) -> dict[str, Tensor]:
    """The tensors of the vision side by canonical name.

    Raises:
        InputError: A tensor is stored in an unreadable type, or present twice.
    """
    tensors: dict[str, Tensor] = {}
    for entry, place in arrays.items():
        name = family.vision.canonical(entry)
        if name is None:
            continue
        tensor = replace(_tensor(name, "safetensors", {"weight": place}, None), place=VISION)
        if name in tensors:
            raise InputError(f"has two tensors for {name}", path=folder)
        if family.vision.is_patch_kernel(name) and tensor.shape[3:] == (3,) and tensor.shape[1] != 3:
            rows, height, width, channels = tensor.shape
            shape, offset = (rows, channels, height, width), tensor.parts[0].offset
            tensor = plain(name, shape, tensor.encoding, span=tensor.span, offset=offset, place=VISION)
            tensor = replace(tensor, channels_last=True)
        tensors[name] = tensor
    return tensors


def _tensor(name: str, kind: str, arrays: _Arrays, shape: tuple[int, ...] | None) -> Tensor:
    """A tensor from its arrays: floats, or quantized in the format of the folder."""
    if len(arrays) == 1:
        ((span, entry),) = arrays.values()
        if entry.dtype not in _ENCODINGS:
            raise InputError(
                f"has dtype {entry.dtype}", f"supported: {', '.join(_ENCODINGS)}", path=span, tensor=entry.name
            )
        if not entry.shape or min(entry.shape) < 1:
            raise InputError(f"has the shape {list(entry.shape)}", path=span, tensor=entry.name)
        return plain(name, entry.shape, _ENCODINGS[entry.dtype], span=span, offset=entry.offset)
    return quantized_tensor(name, kind, arrays, shape)


def _entries(folder: Path) -> Iterator[tuple[str, tuple[FileSpan, safetensors_header.Entry]]]:
    """Every array in the folder's shards: name, file and header entry."""
    index = weight_map(folder)
    shards = sorted(set(index.values())) if index else _shards(folder)
    present: set[str] = set()
    for shard in shards:
        span = FileSpan.of(folder / shard)
        for entry in safetensors_header.parse(span):
            if index.get(entry.name, shard) != shard:
                continue
            if entry.name in present:
                raise InputError("is in two files, and no index says which one counts", path=folder, tensor=entry.name)
            present.add(entry.name)
            yield entry.name, (span, entry)
    lost = sorted(set(index) - present)
    if lost:
        raise InputError(f"places tensor {lost[0]} in {index[lost[0]]}, which does not have it", path=folder / _INDEX)


def weight_map(folder: Path, *, complete: bool = True) -> dict[str, str]:
    """The index of a folder: tensor -> shard. Empty if the folder has no index.

    Args:
        folder: Folder of the model.
        complete: Whether all shards must be present.

    Raises:
        InputError: The index is unusable.
        NotFoundError: A shard is missing.
    """
    index = read_json(folder / _INDEX, {})
    if not index:
        return {}
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise InputError("has no usable weight_map", path=folder / _INDEX)
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or shard in ("", ".", "..") or "\\" in shard:
            raise InputError(f"names the unsafe file {shard!r}", path=folder / _INDEX)
        if complete and not os.path.isfile(folder / shard):
            raise NotFoundError("does not exist, the index names it", "download the missing shard", path=folder / shard)
    return shards


def _shards(folder: Path) -> list[str]:
    """File names of the weights in a folder without index."""
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    if "model.safetensors" in shards:
        return ["model.safetensors"]
    if not shards:
        hint = "save the model as safetensors first" if list(folder.glob("*.bin")) else None
        raise NotFoundError("holds no .safetensors file", hint, path=folder)
    return shards
