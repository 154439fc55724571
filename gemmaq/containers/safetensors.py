"""A Hugging Face folder with safetensors: BF16, F16 or F32, or quantized as compressed-tensors.

What transformers and vLLM load is in `containers.schemes`; embedding and head stay BF16 there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.containers import schemes
from gemmaq.containers.hf_folder import arrays as arrays
from gemmaq.containers.hf_folder import lay_out_shards, side_files, whole_config
from gemmaq.containers.layout import OutputFile
from gemmaq.encodings import Encoding, Fused
from gemmaq.encodings.bitstream import pack_floats
from gemmaq.models.roles import KEY, VALUE
from gemmaq.planning.format import Constant, Format, PieceSpec, Stacking
from gemmaq.planning.plan import Plan, PlannedTensor

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Values

_TORCH = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


def _pieces(encoding: Encoding, columns: int) -> tuple[PieceSpec, ...]:
    if encoding.is_float:
        return (PieceSpec("weight", encoding.label, columns, encoding.row_bytes(columns)),)
    return schemes.pieces(encoding, columns)


def _constants(name: str, shape: tuple[int, ...], encoding: Encoding, divisor: float) -> tuple[Constant, ...]:
    return () if encoding.is_float else schemes.constants(name, shape, encoding, divisor)


FORMAT = Format(
    name="safetensors",
    holds=lambda encoding: encoding.is_float or encoding.compressed_tensors,
    holds_embedding=lambda encoding: encoding.is_float,
    gguf_names=False,
    vector=None,
    default_embedding=lambda body: body.name if body.is_float else "bf16",
    pieces=_pieces,
    portable=True,
    layout="compressed-tensors",
    hf_names=True,
    experts=lambda encoding: Stacking.WHOLE if encoding.is_float else Stacking.SINGLE,
    constants=_constants,
    divides_scales=True,
    fuses=True,
)


def lay_out(checkpoint: Checkpoint, plan: Plan, max_shard_bytes: int | None) -> tuple[OutputFile, ...]:
    """Weights in shards of at most 5 GiB unless told otherwise, with index, config and tokenizer files.

    Raises:
        InputError: the tokenizer is unusable.
    """
    files, index = lay_out_shards(plan, FORMAT, max_shard_bytes, metadata={"format": "pt"}, always_index=False)
    config = whole_config(checkpoint, plan, _TORCH.get(plan.body.name, "bfloat16"))
    if any(not tensor.encoding.is_float for tensor in plan.tensors):
        config["quantization_config"] = _quantization(plan, checkpoint)
    side = index | side_files(checkpoint, config, with_towers=plan.mmproj is not None)
    return (*files, *(OutputFile(name, len(data), data) for name, data in side.items()))


def _quantization(plan: Plan, checkpoint: Checkpoint) -> dict[str, Any]:
    """The quantization_config: a group for each type, and every matrix that stays as it is."""
    family, layers = checkpoint.family, checkpoint.config.layers
    by_type: dict[Encoding, list[str]] = {}
    head = family.names.HEAD.removesuffix(".weight")
    ignore, before = [head], family.names.nested_hf("model.")
    if plan.mmproj is not None and family.towers is not None:
        ignore = [f"re:.*{head}", *(f"re:.*{module}.*" for module in family.towers.MODULES)]
    for tensor in plan.tensors:
        modules = [part.name.removesuffix(".weight") for part in tensor.held]
        if plan.mmproj is not None:  # each program has another name for the text model inside
            modules = ["re:.*" + module.removeprefix(before).replace(".", "[.]") + "$" for module in modules]
        if not tensor.encoding.is_float:
            by_type.setdefault(tensor.encoding, []).extend(modules)
        elif tensor.source.place.role.is_matrix and not tensor.source.place.role.is_table:
            ignore += modules
            place = tensor.source.place
            if place.kind == KEY and place.layer is not None and layers[place.layer].k_is_v:
                # vLLM fuses query, key and value, and ignores the whole only if all three are listed
                ignore += [module.replace(KEY, VALUE) for module in modules]
    groups: dict[str, Any] = {}
    formats = {schemes.packing(encoding) for encoding in by_type}
    for number, (encoding, modules) in enumerate(
        sorted(by_type.items(), key=lambda item: (item[0].bits, item[0].name))
    ):
        own = {"format": schemes.packing(encoding)} if len(formats) > 1 else {}
        targets = ["Linear"] if len(by_type) == 1 else modules
        groups[f"group_{number}"] = {"targets": targets, **schemes.settings(encoding), **own}
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ignore,
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def fused(encoding: Encoding) -> Fused | None:
    """There is no such loop."""
    return None


def pack(planned: PlannedTensor, values: Values) -> tuple[U8, ...]:
    """Floats as they are; codes as a stream of bits, and scales."""
    if planned.encoding.is_float:
        return (pack_floats(planned.encoding, values),)
    return schemes.pack(planned.encoding, values, planned.pieces[1].dtype, planned.divisor)
