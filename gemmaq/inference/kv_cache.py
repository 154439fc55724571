"""The KV cache of llama.cpp: keys and values go through its types before attention reads them.

A cache in a quantized type holds rotated heads: keys are multiplied by a Hadamard matrix as large as the largest power
of two that divides the size of a head, values by one of 64, where 64 divides it. Queries and the output of attention
are rotated too, so that only the rounding is left. Every key and value is rounded, those of the token itself and of
sliding-window layers included. Source: llama.cpp's llama-kv-cache.cpp (attn_rot_k, attn_rot_v) and llama-graph.cpp
(build_attn).

What a processor does on top is left out: on CPUs, llama.cpp rounds queries to Q8_0 as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemmaq.encodings import Encoding, codec, dequantize
from gemmaq.errors import UsageError
from gemmaq.models.config import TextConfig

if TYPE_CHECKING:
    import torch

    from gemmaq.encodings import F32

_LEAST_ROTATION = 64
_ATTENTION = "gemmaq_kv_cache"
"""Name of the attention in transformers that stores keys and values in a cache."""


@dataclass(frozen=True, slots=True)
class KVCache:
    """Types of a KV cache.

    Attributes:
        k: Type of the keys.
        v: Type of the values.
    """

    k: Encoding
    v: Encoding

    @property
    def label(self) -> str:
        """The types as users write them: `q8_0`, or `q8_0,q4_0` for keys and values in different ones."""
        return self.k.name if self.k == self.v else f"{self.k.name},{self.v.name}"

    def check(self, config: TextConfig, model: str) -> None:
        """Check that a model's heads fit the blocks of the types.

        Raises:
            UsageError: They do not; llama.cpp refuses such a cache too.
        """
        for size in sorted({layer.head_dim for layer in config.layers}):
            for encoding in (self.k, self.v):
                if not encoding.fits(size):
                    raise UsageError(
                        f"{model} has heads of {size} numbers, which are no whole blocks of {encoding.block} in a "
                        f"{encoding.name} cache",
                        "choose f16",
                    )

    def stored(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values as attention reads them from the cache, both f32 [..., head size]."""
        size = keys.shape[-1]
        whole = size & -size
        return _stored(keys, self.k, whole), _stored(values, self.v, min(whole, _LEAST_ROTATION))


def _stored(states: torch.Tensor, encoding: Encoding, side: int) -> torch.Tensor:
    """Heads f32 [..., size] after a rotation by a matrix of `side` rows, rounding, and the rotation back."""
    if encoding.is_float or side < _LEAST_ROTATION:
        return _rounded(states, encoding)
    matrix = hadamard(side).to(states.device)
    shape = (*states.shape[:-1], -1, side)
    rotated = (states.reshape(shape) @ matrix).reshape(states.shape)
    return (_rounded(rotated, encoding).reshape(shape) @ matrix).reshape(states.shape)


def hadamard(side: int) -> torch.Tensor:
    """The Hadamard matrix of a power of two in Sylvester's order, orthonormal and its own inverse, f32 [side, side]."""
    import torch

    matrix = torch.full((1, 1), side**-0.5)
    while len(matrix) < side:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def _rounded(states: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """Numbers f32 [..., size] in a type, and back in f32."""
    import torch

    narrow = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
    if encoding.name in narrow:
        return states.to(narrow[encoding.name]).float()
    rows = states.reshape(-1, states.shape[-1]).contiguous().cpu().numpy()
    return torch.from_numpy(round_trip(rows, encoding)).reshape(states.shape).to(states.device)


def round_trip(rows: F32, encoding: Encoding) -> F32:
    """Rows f32 [rows, columns] as a cache of a quantized type gives them back."""
    loops = codec(encoding)
    quantize = loops.cached or loops.nearest
    assert quantize is not None and loops.pack is not None and loops.read is not None, encoding.name
    return dequantize(encoding, loops.read(loops.pack(quantize(rows))))


def attention_with_cache(hf_config: Any) -> None:
    """Let the layers of a model's configuration object of transformers store keys and values in a cache.

    Layers then take it as the argument `kv_cache`, a `KVCache`.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(_ATTENTION, _attend)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
    hf_config._attn_implementation = _ATTENTION


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *, kv_cache: KVCache, **options: Any
) -> Any:
    """Fused attention over keys and values from a cache, with the arguments of transformers."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(module, query, *kv_cache.stored(key, value), attention_mask, **options)
