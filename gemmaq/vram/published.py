"""Google's own memory figures for Gemma 3, by Google's own convention.

Source: Gemma 3 Technical Report (arXiv 2503.19786), table 3, weights alone and with the KV cache at 32,768 tokens, in
decimal GB. Three columns follow one formula in all four rows: nominal parameters without the vision tower at the
column's bytes a weight, and the vision tower in BF16. The others follow none that is known and are quoted.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.gemma.sizes import SIZES, Size

COMPUTED = {"bf16": 2.0, "int4": 0.5, "sfp8": 1.0}
"""Column -> bytes a weight."""

_BLOCKS_32 = {"1B": 0.7, "4B": 2.9, "12B": 7.1, "27B": 15.3}
_KV_32K = {"1B": 0.9, "4B": 4.7, "12B": 14.9, "27B": 18.7}


@dataclass(frozen=True, slots=True)
class Row:
    """One size: column -> GB, for the weights and for weights with the cache."""

    size: Size
    weights_gb: dict[str, float]
    weights_kv_32k_gb: dict[str, float]


def weights_gb(size: Size, bytes_a_weight: float) -> float:
    """Decimal GB of a column that follows the formula, unrounded."""
    return ((size.nominal - size.vision) * bytes_a_weight + 2 * size.vision) / 1e9


def rows() -> list[Row]:
    """The published table, the sizes it has in its order."""
    result = []
    for size in SIZES:
        if size.label not in _BLOCKS_32:
            continue
        computed = {name: round(weights_gb(size, width), 1) for name, width in COMPUTED.items()}
        weights = {
            "bf16": computed["bf16"],
            "int4": computed["int4"],
            "int4_blocks_32": _BLOCKS_32[size.label],
            "sfp8": computed["sfp8"],
        }
        cache = _KV_32K[size.label]
        result.append(Row(size, weights, {name: round(gb + cache, 1) for name, gb in weights.items()}))
    return result
