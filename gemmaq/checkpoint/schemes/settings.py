"""The scheme that config.json names, or the settings files that earlier tools wrote beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gemmaq.checkpoint.schemes.scheme import Scheme
from gemmaq.errors import InputError
from gemmaq.files.text import read_json

FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Files with the settings of earlier versions of AutoGPTQ and AutoAWQ -> the method."""
_PACKINGS = (
    "pack-quantized",
    "int-quantized",
    "naive-quantized",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
    "nvfp4-pack-quantized",
    "float-quantized",
    "mixed-precision",
)
"""Formats of compressed-tensors that are read."""
_GPTQ = ("gptq", "gptq_v2")
_AWQ = ("gemm", "exllama", "ipex")
"""Versions in AWQ's settings whose files are those of the first."""
_MODELOPT = ("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO")


def of_config(document: Mapping[str, Any], folder: Path) -> Scheme:
    """The scheme of a folder.

    Args:
        document: config.json.
        folder: The folder, for files with settings and for messages.

    Raises:
        InputError: gemmaq cannot read the scheme.
    """
    if document.get("quantization"):
        return Scheme("mlx")
    text = document.get("text_config")
    nested = text.get("quantization_config") if isinstance(text, Mapping) else None
    settings = document.get("quantization_config") or document.get("compression_config") or nested
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    if not settings:
        for name, usual in FILES.items():
            settings = read_json(folder / name, {})
            if settings:
                method = settings.get("quant_method", usual)
                break
    if not settings:
        return Scheme("safetensors")
    if not isinstance(settings, Mapping):
        raise InputError(f"has quantization_config {settings!r:.60}, which is no object", path=folder / "config.json")
    make = _METHODS.get(method) if isinstance(method, str) else None
    scheme = make(settings) if make is not None else None
    if scheme is None:
        form = _form(settings)
        raise InputError(
            f"is quantized by {method} ({form or 'no format given'}), which gemmaq cannot read",
            "use the checkpoint that it was made from",
            path=folder,
        )
    return scheme


def _form(settings: Mapping[str, Any]) -> str | None:
    """What the settings call the layout of the arrays."""
    keys = ("packing_format", "checkpoint_format", "format", "version", "quant_algo")
    found = next((settings[key] for key in keys if isinstance(settings.get(key), str)), None)
    if found is None and settings.get("transform_config"):
        return "with transforms"
    return found


def _compressed(settings: Mapping[str, Any]) -> Scheme | None:
    if settings.get("format") not in _PACKINGS or settings.get("transform_config"):
        return None
    return Scheme("compressed-tensors", settings)


def _gptq(settings: Mapping[str, Any]) -> Scheme | None:
    form = (_form({**settings, "version": None}) or _GPTQ[0]).lower()
    if form not in _GPTQ or settings.get("pack_dtype", "int32") != "int32" or settings.get("is_marlin_format"):
        return None
    bits, group = settings.get("bits"), settings.get("group_size")
    order = ", columns in the order of their activations" if settings.get("desc_act") else ""
    return Scheme("gptq", {**settings, "checkpoint_format": form}, f"quantized by GPTQ: {_told(bits, group)}{order}")


def _awq(settings: Mapping[str, Any]) -> Scheme | None:
    version = settings.get("version") or _form({**settings, "version": None}) or _AWQ[0]
    form = version.lower() if isinstance(version, str) else None
    bits = settings.get("bits", settings.get("w_bit", 4))
    if form not in _AWQ or bits != 4:
        return None
    group = settings.get("group_size", settings.get("q_group_size"))
    return Scheme("awq", settings, f"quantized by AWQ: {_told(bits, group)}")


def _auto_round(settings: Mapping[str, Any]) -> Scheme | None:
    """AutoRound writes the layouts of others."""
    form = str(settings.get("packing_format", ""))
    bare = {**settings, "packing_format": None}
    scheme = None
    if form.endswith(("auto_gptq", "gptq")):
        scheme = _gptq({**bare, "checkpoint_format": "gptq"})
    elif form.endswith(("auto_awq", "awq")):
        scheme = _awq({**bare, "version": "gemm"})
    if scheme is None or scheme.note is None:
        return None
    packed = scheme.note.replace("quantized by ", "quantized by AutoRound, packed as ")
    return Scheme(scheme.format, scheme.settings, packed)


def _bitsandbytes(settings: Mapping[str, Any]) -> Scheme | None:
    if settings.get("load_in_8bit") or settings.get("_load_in_8bit"):
        return Scheme("bitsandbytes", settings, "quantized by bitsandbytes: LLM.int8, 8 bits with a scale a row")
    kind = str(settings.get("bnb_4bit_quant_type", "nf4")).upper()
    double = ", scales quantized too" if settings.get("bnb_4bit_use_double_quant") else ""
    return Scheme("bitsandbytes", settings, f"quantized by bitsandbytes: {kind}{double}")


def _fp8(settings: Mapping[str, Any]) -> Scheme | None:
    block = settings.get("weight_block_size")
    per = f"blocks of {' x '.join(map(str, block))}" if isinstance(block, list) else "matrices or rows"
    return Scheme("fp8", settings, f"quantized to FP8, with scales of {per}")


def _modelopt(settings: Mapping[str, Any]) -> Scheme | None:
    return Scheme("fp8", settings, "quantized by ModelOpt to FP8") if settings.get("quant_algo") in _MODELOPT else None


def _told(bits: object, group: object) -> str:
    """Bits and groups in words."""
    grouped = "one group a row" if group in (-1, None) else f"groups of {group}"
    return f"{bits} bits in {grouped}"


_METHODS: dict[str, Callable[[Mapping[str, Any]], Scheme | None]] = {
    "compressed-tensors": _compressed,
    "gptq": _gptq,
    "awq": _awq,
    "auto-round": _auto_round,
    "intel/auto-round": _auto_round,
    "bitsandbytes": _bitsandbytes,
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "modelopt": _modelopt,
}
"""quant_method -> the scheme by its settings, None for a layout that is not read."""
