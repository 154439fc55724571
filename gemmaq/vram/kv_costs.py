"""What types of llama.cpp's KV cache cost in quality, as measured; `gemmaq evaluate --kv-type` measures it.

The figures are of tests/benchmarks/kv_types_270m.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.models.samples import SAMPLE

MODEL = SAMPLE.name
"""The model that they were measured on."""
_NOTABLE = 0.01
"""Mean KL from which on a type is warned of."""
MEASURED: dict[tuple[str, str], float] = {
    ("q8_0", "q8_0"): 0.00055,
    ("q5_1", "q5_1"): 0.0309,
    ("q5_0", "q5_0"): 0.0350,
    ("q4_1", "q4_1"): 0.127,
    ("q4_0", "q4_0"): 0.132,
    ("iq4_nl", "iq4_nl"): 0.126,
    ("q8_0", "q4_0"): 0.0073,
    ("q4_0", "f16"): 0.128,
    ("f16", "q4_0"): 0.0063,
}
"""Types of K and V -> mean KL over 1,530 tokens of six kinds of text, in nats: nearly all of it is from the keys."""


@dataclass(frozen=True, slots=True)
class KVCost:
    """What a KV cache costs in quality.

    Attributes:
        model: Model that it was measured on.
        kv_types: Types of the K cache and of the V cache.
        kl: Mean KL divergence from the predictions without rounding, in nats.
    """

    model: str
    kv_types: tuple[str, str]
    kl: float


def cost(kv_types: tuple[str, str]) -> KVCost | None:
    """What types of the K cache and of the V cache cost, None if that was not measured."""
    kl = MEASURED.get(kv_types)
    return None if kl is None else KVCost(MODEL, kv_types, kl)


def warning(kv_types: tuple[str, str]) -> str | None:
    """A sentence about types that are known to cost quality, without full stop; None for others.

    Where types of K and V were not measured together, those of K decide: values cost little.
    """
    k, v = kv_types
    kl = MEASURED.get(kv_types, MEASURED.get((k, k), 0.0))
    if kl < _NOTABLE:
        return None
    what, asked = (f"a {k} cache costs", k) if k == v else (f"keys in {k} cost", f"{k},{v}")
    return (
        f"{what} quality: a mean KL divergence of {kl:.2g} nats, measured on {MODEL}; measure yours with gemmaq "
        f"evaluate MODEL --kv-type {asked}"
    )
