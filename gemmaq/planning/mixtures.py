"""The named mixtures of llama-quantize: one type for the layers' matrices, a wider one where it matters most.

Source: llama.cpp's llama-quant.cpp, the choice of types for a dense model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.models.roles import DOWN, VALUE


@dataclass(frozen=True, slots=True)
class Spot:
    """What llama-quantize looks at when it chooses the type of a layer's matrix.

    Attributes:
        kind: kind of the matrix (`Place.kind`).
        layer: index of its layer.
        layers: number of layers.
        sharing: query heads of the layer that share a KV head.
        weighted: whether its errors are weighed with an importance matrix.
    """

    kind: str
    layer: int
    layers: int
    sharing: int = 1
    weighted: bool = False


@dataclass(frozen=True, slots=True)
class Wider:
    """Matrices of a mixture that get another type than the rest.

    Attributes:
        kind: kind of the matrices (`Place.kind`).
        when: whether a matrix of this kind is one of them.
        encoding: type they get.
    """

    kind: str
    when: Callable[[Spot], bool]
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Mixture:
    """Types of the layers' matrices.

    Attributes:
        name: the name users type, lower case.
        file_type: GGUF's general.file_type (llama.cpp's llama_ftype).
        body: type of most of them.
        wider: exceptions, the first that applies counts.
    """

    name: str
    file_type: int
    body: Encoding
    wider: tuple[Wider, ...] = ()

    @property
    def label(self) -> str:
        """The name as file names show it (`Q4_K_M`)."""
        return self.name.upper()

    def encoding_of(self, spot: Spot) -> Encoding:
        """The type of a layer's matrix."""
        return next((w.encoding for w in self.wider if w.kind == spot.kind and w.when(spot)), self.body)


def _ends_and_every_third(spot: Spot) -> bool:
    """The first and the last eighth, and every third layer between: half of them."""
    eighth = spot.layers // 8
    return spot.layer < eighth or spot.layer >= 7 * spot.layers // 8 or (spot.layer - eighth) % 3 == 2


def _first_eighth(spot: Spot) -> bool:
    return spot.layer < spot.layers // 8


def _first_eighth_unweighted(spot: Spot) -> bool:
    return _first_eighth(spot) and not spot.weighted


def _first_four(spot: Spot) -> bool:
    return spot.layer < 4


def _four_share(spot: Spot) -> bool:
    """At least four query heads share a KV head: 270M and 1B."""
    return spot.sharing >= 4


_Q4_K, _Q5_K, _Q6_K = ENCODINGS["q4_k"], ENCODINGS["q5_k"], ENCODINGS["q6_k"]
_HALF_IN_Q6_K = (Wider(VALUE, _ends_and_every_third, _Q6_K), Wider(DOWN, _ends_and_every_third, _Q6_K))

MIXTURES: dict[str, Mixture] = {
    m.name: m
    for m in (
        Mixture("q4_k_s", 14, _Q4_K, (Wider(VALUE, _first_four, _Q5_K), Wider(DOWN, _first_eighth, _Q5_K))),
        Mixture("q4_k_m", 15, _Q4_K, _HALF_IN_Q6_K),
        Mixture("q5_k_s", 16, _Q5_K),
        Mixture("q5_k_m", 17, _Q5_K, _HALF_IN_Q6_K),
        Mixture(
            "iq4_nl", 25, ENCODINGS["iq4_nl"],
            (Wider(VALUE, _four_share, _Q5_K), Wider(DOWN, _first_eighth_unweighted, _Q5_K)),
        ),
    )
}  # fmt: skip
