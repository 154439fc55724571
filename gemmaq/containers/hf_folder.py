"""Folders with config.json and safetensors files, laid out: shared by the MLX and the safetensors container."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.tokenizer import to_files
from gemmaq.containers.layout import OutputFile, Piece, Placement, StoredArray, shard_names, split
from gemmaq.files import safetensors_header
from gemmaq.files.span import FileSpan
from gemmaq.planning.plan import Constant, Format, Plan, PlannedTensor

_SHARD_BYTES = 5 << 30


def lay_out_shards(
    plan: Plan, target: Format, limit: int | None, *, metadata: Mapping[str, str], always_index: bool
) -> tuple[list[OutputFile], dict[str, bytes]]:
    """Lay out the weight files of a plan, and the index if there is one.

    Args:
        plan: tensors to write.
        target: demands of the container.
        limit: maximum bytes of a shard, None for 5 GiB, as in transformers and mlx-lm.
        metadata: metadata of the header.
        always_index: whether a single file gets an index, too.
    """
    shards = split(plan.everything, limit or _SHARD_BYTES)
    file_names = shard_names("model{}.safetensors", len(shards))
    files, weight_map, total = [], {}, 0
    for name, tensors in zip(file_names, shards, strict=True):
        constants = [constant for t in tensors for constant in target.constants(t.name, t.shape, t.encoding)]
        file, arrays, size = _lay_out(name, tensors, metadata, constants)
        files.append(file)
        total += size
        weight_map.update(dict.fromkeys(arrays, name))
    index = {
        "metadata": {"total_size": total, "total_parameters": plan.elements},
        "weight_map": dict(sorted(weight_map.items())),
    }
    has_index = always_index or len(files) > 1
    return files, {"model.safetensors.index.json": pretty(index)} if has_index else {}


def _lay_out(
    name: str, tensors: Sequence[PlannedTensor], metadata: Mapping[str, str], constants: Sequence[Constant]
) -> tuple[OutputFile, list[str], int]:
    """A file, the names of its arrays, and their bytes. Constants come first, as part of the head."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0

    def enter(array: str, dtype: str, shape: Sequence[int], size: int) -> int:
        nonlocal at
        header[array] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
        return at - size

    for constant in constants:
        enter(constant.name, constant.dtype, constant.shape, len(constant.data))
    starts: list[list[int]] = []
    for tensor in tensors:
        rows, starts_here = tensor.source.rows, []
        for piece, array in zip(tensor.pieces, tensor.array_names, strict=True):
            shape = (*tensor.shape[:-1], piece.columns) if tensor.source.place.role.is_quantizable else tensor.shape
            starts_here.append(enter(array, piece.dtype, shape, rows * piece.row_bytes))
        starts.append(starts_here)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data_at = 8 + len(text)
    head = len(text).to_bytes(8, "little") + text + b"".join(constant.data for constant in constants)
    placements = tuple(
        Placement(t, tuple(Piece(data_at + s, p.row_bytes) for s, p in zip(begin, t.pieces, strict=True)))
        for t, begin in zip(tensors, starts, strict=True)
    )
    return OutputFile(name, data_at + at, head, placements), [key for key in header if key != "__metadata__"], at


def arrays(folder: Path) -> dict[str, StoredArray]:
    """All arrays of the safetensors files in a folder by name.

    Raises:
        InputError: a header cannot be read.
    """
    spans = [FileSpan.of(path) for path in sorted(folder.glob("*.safetensors"))]
    return {
        entry.name: StoredArray(entry.dtype, entry.shape, span, entry.offset, entry.nbytes)
        for span in spans
        for entry in safetensors_header.parse(span)
    }


def side_files(checkpoint: Checkpoint, config: Mapping[str, Any]) -> dict[str, bytes]:
    """config.json, generation_config.json and the tokenizer's files, verbatim where the source has them."""
    side = {"config.json": pretty(dict(sorted(config.items())))}
    if checkpoint.generation:
        side["generation_config.json"] = pretty(dict(sorted(checkpoint.generation.items())))
    if "vision_config" in config:
        side |= _processor(checkpoint)
    verbatim = checkpoint.tokenizer_files.verbatim
    if verbatim:
        return side | {path.name: path.read_bytes() for path in verbatim}
    return side | to_files(
        checkpoint.tokenizer, checkpoint.family.vocabulary, checkpoint.config.max_position_embeddings
    )


def whole_config(checkpoint: Checkpoint, plan: Plan, dtype: str) -> dict[str, Any]:
    """config.json of the model, with its vision side where that is written."""
    configs, vision_config = checkpoint.family.configs, checkpoint.vision_config
    document = configs.to_hf(checkpoint.config, dtype) | {"tie_word_embeddings": checkpoint.head is None}
    if plan.mmproj is None or vision_config is None:
        return document
    return configs.with_vision(document, checkpoint.config, vision_config)


def _processor(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Files of the image processor, verbatim where the source has them."""
    if checkpoint.processor_files:
        return {path.name: path.read_bytes() for path in checkpoint.processor_files}
    assert checkpoint.vision_config is not None
    files = checkpoint.family.vision.processor_files(checkpoint.vision_config)
    if checkpoint.tokenizer.chat_template is not None:  # a processor does not look for it where a tokenizer does
        files["chat_template.json"] = {"chat_template": checkpoint.tokenizer.chat_template}
    return {name: pretty(value) for name, value in files.items()}


def pretty(value: Any) -> bytes:
    """JSON for people, as file bytes."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
