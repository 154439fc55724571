"""What types cost in quality where gemmaq measured it: mean KL divergence from BF16, in nats, on one small model.

The model is the sample, dithered off the lattices of its own quantization; for types with super-blocks and codebooks
its rows are widened to 768 with zeros. The embedding is Q8_0. Calibrated on 8,192 tokens of Python's reference, for
q4_0 of its library too; scored on 1,020 tokens of other parts of the reference, for q4_0 on 2,040. It orders types; no
larger model was measured. Sources: tests/benchmarks/methods_270m.py (q4_0) and gptq_types.py (all others), November
2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gemmaq.models.samples import SAMPLE


@dataclass(frozen=True, slots=True)
class Loss:
    """Mean KL divergence of a type's predictions, by method.

    Attributes:
        kl: Method -> nats per token; methods that were not measured are missing.
        model: Model that it was measured on.
    """

    kl: Mapping[str, float]
    model: str


_WIDE = f"{SAMPLE.name}, rows widened to 768"
_LOSSES = {
    "q4_0": Loss({"nearest": 0.318, "importance": 0.193, "gptq": 0.054}, SAMPLE.name),
    "q4_k": Loss({"nearest": 0.187, "importance": 0.067, "gptq": 0.0285}, _WIDE),
    "q4_k_m": Loss({"importance": 0.051, "gptq": 0.0245}, _WIDE),
    "iq4_nl": Loss({"nearest": 0.146, "importance": 0.074, "gptq": 0.0312}, _WIDE),
    "q6_k": Loss({"importance": 0.0078, "gptq": 0.0025}, _WIDE),
}
TEXT = "parts of Python's reference that were not calibrated on"
"""What was scored."""


def loss_of(quant: str) -> Loss | None:
    """What a type or mixture costs, None where that was not measured."""
    return _LOSSES.get(quant.lower())
