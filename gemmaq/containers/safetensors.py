"""A Hugging Face folder with safetensors, text-only, weights in BF16, F16 or F32."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.tokenizer import to_files
from gemmaq.containers import OutputFile, Piece, Placement, shard_names, split
from gemmaq.encodings import codec
from gemmaq.gemma import names
from gemmaq.gemma.config import to_hf
from gemmaq.plan import Format, Plan, PlannedTensor

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Values

FORMAT = Format("safetensors", frozenset({"bf16", "f16", "f32"}), lambda name: name, None, norm_shift=0.0)

_TORCH = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
_SHARD_BYTES = 5 << 30


def lay_out(checkpoint: Checkpoint, plan: Plan, max_shard_bytes: int | None) -> tuple[OutputFile, ...]:
    """Weights in shards of at most 5 GiB unless told otherwise, with index, config and tokenizer files.

    Raises:
        InputError: the tokenizer is unusable.
    """
    shards = split(plan.tensors, max_shard_bytes or _SHARD_BYTES)
    file_names = shard_names("model{}.safetensors", len(shards))
    files = [_file(name, tensors) for name, tensors in zip(file_names, shards, strict=True)]
    side: dict[str, bytes] = {"config.json": _json(_config(checkpoint, plan))}
    if len(shards) > 1:
        weight_map = {p.tensor.name: file.name for file in files for p in file.placements}
        total = {"total_parameters": plan.elements, "total_size": plan.tensor_bytes}
        side["model.safetensors.index.json"] = _json(
            {"metadata": total, "weight_map": dict(sorted(weight_map.items()))}
        )
    if checkpoint.generation:
        side["generation_config.json"] = _json(dict(sorted(checkpoint.generation.items())))
    verbatim = checkpoint.tokenizer_files.verbatim
    if verbatim:
        side |= {path.name: path.read_bytes() for path in verbatim}
    else:
        side |= to_files(checkpoint.tokenizer, checkpoint.config.max_position_embeddings)
    return (*files, *(OutputFile(name, len(data), data) for name, data in side.items()))


def _config(checkpoint: Checkpoint, plan: Plan) -> Mapping[str, Any]:
    config = to_hf(checkpoint.config, _TORCH[plan.recipe.body.name])
    return {**config, "tie_word_embeddings": names.HEAD not in checkpoint.tensors}


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()


def _file(name: str, tensors: Sequence[PlannedTensor]) -> OutputFile:
    """One shard: its header, padded so that data is aligned to 8 bytes, and where the tensors lie."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.encoding.label,
            "shape": list(tensor.source.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    placements, offset = [], len(head)
    for tensor in tensors:
        placements.append(Placement(tensor, (Piece(offset, tensor.encoding.row_bytes(tensor.source.columns)),)))
        offset += tensor.nbytes
    return OutputFile(name, offset, head, tuple(placements))


def pack(planned: PlannedTensor, values: Values) -> tuple[U8, ...]:
    """A tensor is one piece: its floats."""
    packer = codec(planned.encoding).pack
    assert packer is not None
    return (packer(values),)
