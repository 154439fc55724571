"""An MLX folder as mlx-lm loads it: tied embedding, affine groups; with a vision side also as mlx-vlm loads it.

mlx-vlm wants a head in the file and mlx-lm wants it whole or not at all, so that of a model with a vision side repeats
the embedding's codes. Tower and projector stay BF16, the patch convolution has its channels last.

A Q4_0 block is an affine group of 32 with scale d and bias -8 d, so ggml's symmetric types are held exactly wherever
BF16 holds their scale. Source of the layout: mlx.core.quantize, and what mlx_lm.convert writes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.containers.hf_folder import arrays as arrays
from gemmaq.containers.hf_folder import lay_out_shards, side_files, whole_config
from gemmaq.containers.layout import OutputFile
from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.encodings.bitstream import pack_codes, pack_floats, unpack_floats
from gemmaq.planning.plan import Format, PieceSpec, Plan, PlannedTensor

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Values

_BF16 = ENCODINGS["bf16"]


def _pieces(encoding: Encoding, columns: int) -> tuple[PieceSpec, ...]:
    if encoding.is_float:
        return (PieceSpec("weight", encoding.label, columns, encoding.row_bytes(columns)),)
    packed, groups = columns * encoding.bits // 8, columns // encoding.block
    scales, biases = (PieceSpec(suffix, "BF16", groups, 2 * groups) for suffix in ("scales", "biases"))
    return PieceSpec("weight", "U32", packed // 4, packed), scales, biases


def _default_embedding(body: Encoding) -> str:
    """The body's type if it is MLX's own or BF16, Q8_0 for ggml's types."""
    return body.name if body.is_float or body.ggml_type is None else "q8_0"


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
    text_prefix="language_model.",
    channels_last=True,
    repeats_head=True,
    layout="mlx",
)


def lay_out(checkpoint: Checkpoint, plan: Plan, max_shard_bytes: int | None) -> tuple[OutputFile, ...]:
    """Weights in shards of at most 5 GiB unless told otherwise, with index, config and tokenizer files.

    Raises:
        InputError: the tokenizer is unusable.
    """
    files, index = lay_out_shards(plan, FORMAT, max_shard_bytes, metadata={"format": "mlx"}, always_index=True)
    config = whole_config(checkpoint, plan, "bfloat16")
    if "text_config" in config:  # where mlx-vlm looks; without hidden_size it scales images as for one of 2048
        config["text_config"]["mm_tokens_per_image"] = config["mm_tokens_per_image"]
        config["hidden_size"] = config["text_config"]["hidden_size"]
    quantization = _quantization(plan)
    if quantization:
        config |= {"quantization": quantization, "quantization_config": quantization}
    side = index | side_files(checkpoint, config)
    return (*files, *(OutputFile(name, len(data), data) for name, data in side.items()))


def _quantization(plan: Plan) -> dict[str, Any]:
    """The most frequent group size and bits at the top, and an entry for every module that differs."""
    matrices = [t for t in plan.everything if t.source.place.role.is_quantizable]
    settings = {t.name.removesuffix(".weight"): _setting(t.encoding) for t in matrices}
    frequent = Counter(key for key in settings.values() if key is not None).most_common(1)
    if not frequent:
        return {}
    usual = frequent[0][0]
    overrides = {module: _block(key) if key else False for module, key in settings.items() if key != usual}
    return {**_block(usual), **overrides}


def _setting(encoding: Encoding) -> tuple[int, int] | None:
    return None if encoding.is_float else (encoding.block, encoding.bits)


def _block(setting: tuple[int, int]) -> dict[str, Any]:
    return {"group_size": setting[0], "bits": setting[1], "mode": "affine"}


def pack(planned: PlannedTensor, values: Values) -> tuple[U8, ...]:
    """Floats as they are; codes as a stream of bits, scales and biases."""
    encoding = planned.encoding
    if encoding.is_float:
        return (pack_floats(encoding, values),)
    kind = ENCODINGS[planned.pieces[1].dtype.lower()]
    codes, scales, minima = pack_codes(encoding.bits, values.codes), pack_floats(kind, values.scales), values.minima
    if minima is None:
        minima = unpack_floats(kind, scales) * np.float32(-(encoding.zero or 0))
    return codes, scales, pack_floats(kind, minima)
