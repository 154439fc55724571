"""Google's own memory figures for Gemma 3, by Google's own convention, and what is really there beside them.

Sources: Gemma 3 Technical Report (arXiv 2503.19786), table 3, weights alone and with the KV cache at 32,768 tokens, in
decimal GB; the load table of ai.google.dev's Gemma documentation; Google's announcement of Gemma 3 1B for mobile.
Three columns of table 3 follow one formula in all four rows: nominal parameters without the vision tower at the
column's bytes a weight, and the vision tower in BF16. All others follow none that is known and are quoted.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.models.gemma3.sizes import SIZES
from gemmaq.models.size import Size

COMPUTED = {"bf16": 2.0, "int4": 0.5, "sfp8": 1.0}
"""Column -> bytes a weight."""

_BLOCKS_32 = {"1B": 0.7, "4B": 2.9, "12B": 7.1, "27B": 15.3}
_BITS_OF_BLOCKS_32 = 4.5
_KV_32K = {"1B": 0.9, "4B": 4.7, "12B": 14.9, "27B": 18.7}

LOAD_COLUMNS = ("fp32", "bf16", "sfp8", "q4_0", "int4")
LOAD_GB: dict[str, tuple[float | None, ...]] = {
    "gemma-3-270m": (None, 0.4, 0.297, 0.24, None),
    "gemma-3-1b": (4, 1.5, 1.1, 0.892, 0.861),
    "gemma-3-4b": (16, 6.4, 4.4, 3.4, 3.2),
    "gemma-3-12b": (48, 20, 12.2, 8.7, 8.2),
    "gemma-3-27b": (108, 46.4, 29.1, 21, 19.9),
}
"""The documentation's memory to load a model, by LOAD_COLUMNS; quoted."""
MOBILE_INT4_GB = {"gemma-3-1b": 0.529}
"""The int4 file for phones, scales and tokenizer included; quoted."""


@dataclass(frozen=True, slots=True)
class Row:
    """One size.

    Attributes:
        size: of Gemma 3.
        weights_gb: column -> Google's figure.
        weights_kv_32k_gb: the same with the cache.
        exact_gb: column -> what the real parameters take in the same types, vision tower in BF16.
    """

    size: Size
    weights_gb: dict[str, float]
    weights_kv_32k_gb: dict[str, float]
    exact_gb: dict[str, float]


def weights_gb(size: Size, bytes_a_weight: float) -> float:
    """Decimal GB of a column that follows the formula, unrounded."""
    return ((size.nominal - size.vision) * bytes_a_weight + 2 * size.vision) / 1e9


def exact_gb(size: Size, bytes_a_weight: float) -> float:
    """The same of the parameters that are really there."""
    return (size.config.parameters * bytes_a_weight + 2 * (size.vision + size.projector)) / 1e9


def rows() -> list[Row]:
    """The published table, the sizes it has in its order."""
    widths = {"bf16": 2.0, "int4": 0.5, "int4_blocks_32": _BITS_OF_BLOCKS_32 / 8, "sfp8": 1.0}
    result = []
    for size in SIZES:
        if size.label not in _BLOCKS_32:
            continue
        weights = {
            name: round(weights_gb(size, width), 1) if name in COMPUTED else _BLOCKS_32[size.label]
            for name, width in widths.items()
        }
        cache = _KV_32K[size.label]
        result.append(
            Row(
                size,
                weights,
                {name: round(gb + cache, 1) for name, gb in weights.items()},
                {name: round(exact_gb(size, width), 3) for name, width in widths.items()},
            )
        )
    return result


def headline(size: Size) -> str | None:
    """BF16 -> int4 in GB as the QAT release states it, None for a size it does not name."""
    if size.label not in _BLOCKS_32:
        return None
    return f"{weights_gb(size, 2):.1f} → {weights_gb(size, 0.5):.1f}"
