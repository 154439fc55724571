"""An MLX folder as mlx-lm loads it: tied embedding, quantized groups; with towers also as mlx-vlm loads it.

For a family with towers whose head mlx-vlm wants in the file (`REPEATS_HEAD`), the head repeats the embedding's codes:
mlx-lm wants it whole or not at all. Towers and projectors stay BF16, convolutions have their channels last.

A Q4_0 block is an affine group of 32 with scale d and bias -8 d, so ggml's symmetric types are held exactly wherever
BF16 holds their scale. Floating point codes have scales of one byte and no biases; their mode is named after the type.
Source of the layout: mlx.core.quantize, and what mlx_lm.convert writes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.containers.hf_folder import arrays as arrays
from gemmaq.containers.hf_folder import lay_out_shards, side_files, whole_config
from gemmaq.containers.layout import OutputFile
from gemmaq.encodings import ENCODINGS, Encoding, Fused, Kind, codec
from gemmaq.encodings.bitstream import pack_codes, pack_floats, pack_scales, unpack_scales
from gemmaq.errors import InputError
from gemmaq.models.sentence_transformers import is_head
from gemmaq.planning.format import Format, PieceSpec, Stacking
from gemmaq.planning.plan import Plan, PlannedTensor

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Values

_BF16 = ENCODINGS["bf16"]


def _pieces(encoding: Encoding, columns: int) -> tuple[PieceSpec, ...]:
    if encoding.is_float:
        return (PieceSpec("weight", encoding.label, columns, encoding.row_bytes(columns)),)
    packed, groups = columns * encoding.bits // 8, columns // encoding.block
    if encoding.has_byte_scales:
        return PieceSpec("weight", "U32", packed // 4, packed), PieceSpec("scales", "U8", groups, groups)
    scales, biases = (PieceSpec(suffix, "BF16", groups, 2 * groups) for suffix in ("scales", "biases"))
    return PieceSpec("weight", "U32", packed // 4, packed), scales, biases


def _default_embedding(body: Encoding) -> str:
    """The body's type if it is MLX's own or BF16, Q8_0 for ggml's types and integers of compressed-tensors."""
    own = body.is_float or (body.ggml_type is None and body.kind is not Kind.LINEAR)
    return body.name if own else "q8_0"


def _holds(encoding: Encoding) -> bool:
    return encoding.mlx


FORMAT = Format(
    name="mlx",
    holds=_holds,
    holds_embedding=_holds,
    gguf_names=False,
    vector=_BF16,
    default_embedding=_default_embedding,
    pieces=_pieces,
    portable=True,
    channels_last=True,
    repeats_head=True,
    layout="mlx",
    experts=lambda encoding: Stacking.SPLIT,
    router=lambda body: None if body.is_float else ENCODINGS["affine8-g64"],
    nested=True,
    idle=True,
)


def lay_out(checkpoint: Checkpoint, plan: Plan, max_shard_bytes: int | None) -> tuple[OutputFile, ...]:
    """Weights in shards of at most 5 GiB unless told otherwise, with index, config and tokenizer files.

    Raises:
        InputError: the tokenizer is unusable, MLX cannot express the model, or one that embeds lacks its dense heads.
    """
    checkpoint.family.configs.check_mlx(checkpoint.config)
    if checkpoint.embedder is not None and len([name for name in checkpoint.embedder.files if is_head(name)]) < 2:
        raise InputError(
            "has no folders with two dense heads, without which mlx-embeddings does not load such a model",
            "convert the publisher's folder, or write gguf or safetensors",
            path=checkpoint.location,
        )
    files, index = lay_out_shards(plan, FORMAT, max_shard_bytes, metadata={"format": "mlx"}, always_index=True)
    config = whole_config(checkpoint, plan, "bfloat16")
    if checkpoint.family.configs.NESTED and plan.mmproj is None:
        config = checkpoint.family.configs.nested(config)
    if "mm_tokens_per_image" in config:  # where mlx-vlm looks; without hidden_size it scales images as for one of 2048
        config["text_config"]["mm_tokens_per_image"] = config["mm_tokens_per_image"]
        config["hidden_size"] = config["text_config"]["hidden_size"]
    quantization = _quantization(plan)
    if quantization:
        config |= {"quantization": quantization, "quantization_config": quantization}
    side = index | side_files(checkpoint, config, with_towers=plan.mmproj is not None)
    return (*files, *(OutputFile(name, len(data), data) for name, data in side.items()))


def _quantization(plan: Plan) -> dict[str, Any]:
    """The most frequent group size, bits and mode at the top, and an entry for every module that differs."""
    matrices = [t for t in plan.everything if t.source.place.role.is_matrix]
    settings = {part.name.removesuffix(".weight"): _setting(t.encoding) for t in matrices for part in t.held}
    frequent = Counter(key for key in settings.values() if key is not None).most_common(1)
    if not frequent:
        return {}
    usual = frequent[0][0]
    overrides = {module: _block(key) if key else False for module, key in settings.items() if key != usual}
    return {**_block(usual), **overrides}


def _setting(encoding: Encoding) -> tuple[int, int, str] | None:
    if encoding.is_float:
        return None
    return encoding.block, encoding.bits, encoding.name if encoding.has_byte_scales else "affine"


def _block(setting: tuple[int, int, str]) -> dict[str, Any]:
    return {"group_size": setting[0], "bits": setting[1], "mode": setting[2]}


def fused(encoding: Encoding) -> Fused | None:
    """The loop from BF16 weights to the arrays of one of MLX's own types."""
    return codec(encoding).fused if encoding.ggml_type is None else None


def pack(planned: PlannedTensor, values: Values) -> tuple[U8, ...]:
    """Floats as they are; codes as a stream of bits, scales and, where the mode has them, biases."""
    encoding = planned.encoding
    if encoding.is_float:
        return (pack_floats(encoding, values),)
    dtype = planned.pieces[1].dtype
    codes, scales = pack_codes(encoding.bits, values.codes), pack_scales(encoding, dtype, values.scales)
    if encoding.has_byte_scales:
        return codes, scales
    minima = values.minima
    if minima is None:
        minima = unpack_scales(encoding, dtype, scales) * np.float32(-(encoding.zero or 0))
    return codes, scales, pack_scales(encoding, dtype, minima)
