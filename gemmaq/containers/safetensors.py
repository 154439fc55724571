"""A Hugging Face folder with safetensors: BF16, F16 or F32, or int4 and int8 as compressed-tensors.

compressed-tensors `pack-quantized`, symmetric, groups of 32, is what transformers and vLLM load; embedding and head
stay BF16 there. Source of the layout: the compressed-tensors library, compressors/quantized_compressors.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.containers.hf_folder import arrays as arrays
from gemmaq.containers.hf_folder import lay_out_shards, side_files, whole_config
from gemmaq.containers.layout import OutputFile
from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.encodings.bitstream import pack_codes, pack_floats
from gemmaq.models.family import Family
from gemmaq.planning.plan import Constant, Format, PieceSpec, Plan, PlannedTensor

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Values

_TORCH = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


def _pieces(encoding: Encoding, columns: int) -> tuple[PieceSpec, ...]:
    if encoding.is_float:
        return (PieceSpec("weight", encoding.label, columns, encoding.row_bytes(columns)),)
    packed = columns * encoding.bits // 8
    groups = columns // encoding.block
    return PieceSpec("weight_packed", "I32", packed // 4, packed), PieceSpec("weight_scale", "BF16", groups, 2 * groups)


def _constants(name: str, shape: tuple[int, ...], encoding: Encoding) -> tuple[Constant, ...]:
    """compressed-tensors has the shape of every quantized matrix as an array."""
    if encoding.is_float:
        return ()
    return (Constant(f"{name}_shape", "I64", (len(shape),), struct.pack(f"<{len(shape)}q", *shape)),)


FORMAT = Format(
    name="safetensors",
    holds=lambda encoding: encoding.is_float or encoding.compressed_tensors,
    holds_embedding=lambda encoding: encoding.is_float,
    gguf_names=False,
    vector=None,
    default_embedding=lambda body: body.name if body.is_float else "bf16",
    pieces=_pieces,
    portable=True,
    text_prefix="language_model.",
    layout="compressed-tensors",
    constants=_constants,
)


def lay_out(checkpoint: Checkpoint, plan: Plan, max_shard_bytes: int | None) -> tuple[OutputFile, ...]:
    """Weights in shards of at most 5 GiB unless told otherwise, with index, config and tokenizer files.

    Raises:
        InputError: the tokenizer is unusable.
    """
    files, index = lay_out_shards(plan, FORMAT, max_shard_bytes, metadata={"format": "pt"}, always_index=False)
    config = whole_config(checkpoint, plan, _TORCH.get(plan.body.name, "bfloat16"))
    if any(not tensor.encoding.is_float for tensor in plan.tensors):
        config["quantization_config"] = _quantization(plan, checkpoint.family)
    side = index | side_files(checkpoint, config)
    return (*files, *(OutputFile(name, len(data), data) for name, data in side.items()))


def _quantization(plan: Plan, family: Family) -> dict[str, Any]:
    """The quantization_config: a group for each number of bits, and every matrix that stays as it is."""
    by_bits: dict[int, list[str]] = {}
    head = family.names.HEAD.removesuffix(".weight")
    ignore = [head]
    if plan.mmproj is not None:
        ignore = [f"re:.*{head}", *(f"re:.*{module}.*" for module in family.vision.MODULES)]
    for tensor in plan.tensors:
        module = tensor.name.removesuffix(".weight")
        if plan.mmproj is not None:
            module = "re:.*" + module.removeprefix(FORMAT.text_prefix + "model.").replace(".", "[.]") + "$"
        if not tensor.encoding.is_float:
            by_bits.setdefault(tensor.encoding.bits, []).append(module)
        elif tensor.source.place.role.is_layer_matrix:
            ignore.append(module)
    groups = {}
    for number, (bits, modules) in enumerate(sorted(by_bits.items())):
        weights = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
        groups[f"group_{number}"] = {
            "targets": ["Linear"] if len(by_bits) == 1 else modules,
            "weights": {**weights, "dynamic": False},
            "input_activations": None,
            "output_activations": None,
        }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ignore,
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def pack(planned: PlannedTensor, values: Values) -> tuple[U8, ...]:
    """Floats as they are; codes as a stream of bits, and scales."""
    if planned.encoding.is_float:
        return (pack_floats(planned.encoding, values),)
    return pack_codes(planned.encoding.bits, values.codes), pack_floats(
        ENCODINGS[planned.pieces[1].dtype.lower()], values.scales
    )
