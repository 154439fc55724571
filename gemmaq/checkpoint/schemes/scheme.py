"""The scheme of a folder: how the names of its arrays are read, and which decoder a quantized matrix gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gemmaq.checkpoint import Tensor
from gemmaq.checkpoint.quantized import quantized_tensor
from gemmaq.checkpoint.schemes import bitsandbytes, scaled
from gemmaq.checkpoint.schemes.arrays import Arrays, weight_settings
from gemmaq.checkpoint.schemes.compressed import compressed_tensor
from gemmaq.checkpoint.schemes.gptq import awq_tensor, gptq_tensor
from gemmaq.checkpoint.small_floats import small_float_tensor
from gemmaq.errors import InputError

_COMPRESSED = "compressed-tensors"
_FLOATS = ("BF16", "F16", "F32")
_INT8 = "SCB"
_SUFFIXES = frozenset((
    "weight", "scales", "biases", "weight_packed", "weight_scale", "weight_shape", "weight_zero_point",
    "weight_g_idx", "weight_global_scale", "input_global_scale", "input_scale", "weight_scale_inv", "activation_scale",
    "input_scale_ub", "input_zero_point", "qweight", "qzeros", "g_idx", _INT8, "weight_format",
))  # fmt: skip
_BEHIND = ".weight."
"""What stands before the suffix of some arrays, as in `.weight.absmax`."""
_UNUSED = frozenset(("input_scale", "input_global_scale", "activation_scale", "input_scale_ub", "input_zero_point"))
"""Arrays that are for numbers of a running model, not for weights."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the matrices of a folder are quantized.

    Attributes:
        format: Format of the checkpoint: `safetensors`, `mlx`, `compressed-tensors`, `gptq`, `awq`, `bitsandbytes` or
            `fp8`.
        settings: The quantization settings of the folder.
        note: A sentence on the scheme, where another program's library made the folder.
    """

    format: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None

    @property
    def rowwise(self) -> bool:
        """Whether all matrices of compressed-tensors have one scale a row."""
        found = [weights.get("strategy") for weights in weight_settings(self.settings)]
        return bool(found) and all(strategy == "channel" for strategy in found)

    def tensor(self, name: str, arrays: Arrays, shape: tuple[int, ...] | None) -> Tensor | None:
        """A quantized matrix; None for an array of floats.

        Args:
            name: Canonical name.
            arrays: Suffix of an array -> file and header entry.
            shape: Shape by the config.

        Raises:
            InputError: Arrays are missing or do not fit, or the type cannot be read.
        """
        arrays = {suffix: place for suffix, place in arrays.items() if suffix not in _UNUSED} or arrays
        if bitsandbytes.is_four_bits(arrays):
            return bitsandbytes.four_bit_tensor(name, arrays, shape)
        if _INT8 in arrays:
            return bitsandbytes.int8_tensor(name, arrays)
        if "qweight" in arrays:
            return self._packed_words(name, arrays, shape)
        if self._is_scaled(arrays):
            return scaled.scaled_tensor(name, arrays, self.settings)
        if len(arrays) == 1:
            return None
        if self.format == _COMPRESSED and (made := compressed_tensor(name, arrays, shape, self.settings)) is not None:
            return made
        kind = _COMPRESSED if self.format == "fp8" else self.format
        return small_float_tensor(name, kind, arrays) or quantized_tensor(
            name, kind, arrays, shape, rowwise=self.rowwise
        )

    def _packed_words(self, name: str, arrays: Arrays, shape: tuple[int, ...] | None) -> Tensor:
        """A matrix of GPTQ or AWQ, which only the settings tell apart."""
        if self.format not in ("gptq", "awq"):
            raise InputError(
                f"is stored as {', '.join(sorted(arrays))}, as GPTQ and AWQ do, but config.json does not say which",
                "its quantization_config or the file quantize_config.json says so: download it, too",
                path=arrays["qweight"][0],
                tensor=name,
            )
        make = gptq_tensor if self.format == "gptq" else awq_tensor
        return make(name, arrays, shape, self.settings)

    def _is_scaled(self, arrays: Arrays) -> bool:
        """Whether a matrix consists of FP8 numbers whose scales no type of gemmaq has."""
        codes = [entry for _, entry in arrays.values() if entry.dtype in scaled.CODES]
        if len(arrays) == 1:
            return len(codes) == 1 and len(codes[0].shape) > 1
        if "weight" not in arrays or arrays["weight"][1].dtype not in scaled.CODES or self.format == "mlx":
            return False
        entry = arrays["weight"][1]
        scales = arrays["weight_scale"][1] if "weight_scale" in arrays else None
        if scales is None or entry.dtype != "F8_E4M3" or self.format not in (_COMPRESSED, "fp8"):
            return True
        return scales.dtype in _FLOATS and scales.shape != (*entry.shape[:-1], 1)


def split(entry: str) -> tuple[str, str]:
    """Name of the tensor that an array belongs to, and what the array is in it: `weight`, `scales`, `absmax`."""
    module, inside, rest = entry.rpartition(_BEHIND)
    if inside and (rest in bitsandbytes.SMALL or rest.startswith(bitsandbytes.STATE)):
        return f"{module}.weight", rest
    module, _, suffix = entry.rpartition(".")
    return (f"{module}.weight" if module and suffix in _SUFFIXES else entry), suffix
