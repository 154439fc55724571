"""Folders with config.json and safetensors files, laid out: shared by the MLX and the safetensors container."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.tokenizer_files import to_files
from gemmaq.containers.layout import OutputFile, Piece, Placement, StoredArray, shard_names, split
from gemmaq.files import safetensors_header
from gemmaq.files.runs import Run
from gemmaq.files.span import FileSpan
from gemmaq.files.whole import read_bytes
from gemmaq.planning.format import Constant, Format
from gemmaq.planning.plan import Plan, PlannedTensor

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
    file_names = shard_names("model", ".safetensors", len(shards))
    files, weight_map, total = [], {}, 0
    for name, tensors in zip(file_names, shards, strict=True):
        constants = [
            c
            for t in tensors
            for part in t.held
            for c in target.constants(part.name, part.shape, t.encoding, t.divisor)
        ]
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
    found: list[list[Piece]] = []
    for tensor in tensors:
        runs: list[list[Run]] = [[] for _ in tensor.pieces]
        for array in tensor.arrays:
            piece, part = tensor.pieces[array.piece], array.part
            shape = part.shape if tensor.encoding.is_float else (*part.shape[:-1], piece.columns)
            size = part.rows * piece.row_bytes
            offset = enter(array.name, piece.dtype, shape, size)
            for first, count in part.runs:
                runs[array.piece].append(Run(first, count, offset))
                offset += count * piece.row_bytes
        found.append([_piece(places, piece.row_bytes) for places, piece in zip(runs, tensor.pieces, strict=True)])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data_at = 8 + len(text)
    head = len(text).to_bytes(8, "little") + text + b"".join(constant.data for constant in constants)
    placements = tuple(
        Placement(tensor, tuple(_moved(piece, data_at) for piece in pieces))
        for tensor, pieces in zip(tensors, found, strict=True)
    )
    return OutputFile(name, data_at + at, head, placements), [key for key in header if key != "__metadata__"], at


def _piece(runs: list[Run], row_bytes: int) -> Piece:
    """A piece whose rows lie in these runs, given slice by slice."""
    if len(runs) == 1:
        return Piece(runs[0].offset, row_bytes)
    return Piece(min(run.offset for run in runs), row_bytes, tuple(sorted(runs, key=lambda run: run.first)))


def _moved(piece: Piece, by: int) -> Piece:
    """The piece, so many bytes further on in the file."""
    runs = tuple(replace(run, offset=run.offset + by) for run in piece.scattered)
    return replace(piece, offset=piece.offset + by, scattered=runs)


def arrays(paths: Sequence[Path]) -> dict[str, StoredArray]:
    """All arrays of safetensors files by name.

    Raises:
        InputError: a header cannot be read.
    """
    return {
        entry.name: StoredArray(entry.dtype, entry.shape, span, entry.offset, entry.nbytes)
        for span in map(FileSpan.of, paths)
        for entry in safetensors_header.parse(span)
    }


def side_files(checkpoint: Checkpoint, config: Mapping[str, Any], *, with_towers: bool) -> dict[str, bytes]:
    """config.json, generation_config.json and the tokenizer's files, verbatim where the source has them."""
    side = {"config.json": pretty(dict(sorted(config.items())))}
    if checkpoint.generation:
        side["generation_config.json"] = pretty(dict(sorted(checkpoint.generation.items())))
    if with_towers:
        side |= _processor(checkpoint)
    if checkpoint.embedder is not None:
        side |= {name: read_bytes(path) for name, path in checkpoint.embedder.files.items()}
    if checkpoint.tokenizer_files.verbatim:
        return side | checkpoint.tokenizer_files.contents()
    return side | to_files(
        checkpoint.tokenizer, checkpoint.family.vocabulary, checkpoint.config.max_position_embeddings
    )


def whole_config(checkpoint: Checkpoint, plan: Plan, dtype: str) -> dict[str, Any]:
    """config.json of the model, with its towers where they are written."""
    towers, towers_config = checkpoint.family.towers, checkpoint.towers_config
    document = checkpoint.family.configs.to_hf(checkpoint.config, dtype) | {
        "tie_word_embeddings": checkpoint.head is None
    }
    if plan.mmproj is None or towers is None or towers_config is None:
        return document
    return towers.with_towers(document, checkpoint.config, towers_config)


def _processor(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Files of the processor of images and sound, verbatim where the source has them."""
    if checkpoint.processor_files:
        return {path.name: read_bytes(path) for path in checkpoint.processor_files}
    assert checkpoint.towers_config is not None and checkpoint.family.towers is not None
    files = checkpoint.family.towers.processor_files(checkpoint.towers_config)
    template = checkpoint.tokenizer.chat_template
    if template is not None and not checkpoint.family.vocabulary.TEMPLATE_FILE:
        files["chat_template.json"] = {"chat_template": template}  # a processor does not look where a tokenizer does
    return {name: pretty(value) for name, value in files.items()}


def pretty(value: Any) -> bytes:
    """JSON for people, as file bytes."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
