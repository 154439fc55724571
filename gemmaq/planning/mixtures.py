"""The named mixtures of llama-quantize: one type for the layers' matrices, a wider one where it matters most.

Source: llama.cpp's llama-quant.cpp, the choice of types for a dense model without importance matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.models.roles import Place

Layers = Callable[[int, int], bool]
"""A layer and the number of layers -> whether it is meant."""


@dataclass(frozen=True, slots=True)
class Wider:
    """Matrices of a mixture that get another type than the rest.

    Attributes:
        kind: Their kind (`Place.kind`).
        layers: in which layers.
        encoding: what they get.
    """

    kind: str
    layers: Layers
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Mixture:
    """Types of the layers' matrices.

    Attributes:
        name: the name users type, lower case.
        file_type: GGUF's general.file_type (llama.cpp's llama_ftype).
        body: what most of them get.
        wider: the exceptions.
    """

    name: str
    file_type: int
    body: Encoding
    wider: tuple[Wider, ...] = ()

    @property
    def label(self) -> str:
        """The name as file names show it (`Q4_K_M`)."""
        return self.name.upper()

    def encoding_of(self, place: Place, layers: int) -> Encoding:
        """The type of a layer's matrix at a place in a model of so many layers."""
        for wider in self.wider:
            if place.layer is not None and place.kind == wider.kind and wider.layers(place.layer, layers):
                return wider.encoding
        return self.body


def _ends_and_every_third(layer: int, layers: int) -> bool:
    """The first and the last eighth, and every third layer between: half of them."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _first_eighth(layer: int, layers: int) -> bool:
    return layer < layers // 8


def _first_four(layer: int, layers: int) -> bool:
    return layer < 4


_VALUES, _DOWN = "v_proj", "down"
_Q4_K, _Q5_K, _Q6_K = ENCODINGS["q4_k"], ENCODINGS["q5_k"], ENCODINGS["q6_k"]
_HALF_IN_Q6_K = (Wider(_VALUES, _ends_and_every_third, _Q6_K), Wider(_DOWN, _ends_and_every_third, _Q6_K))

MIXTURES: dict[str, Mixture] = {
    m.name: m
    for m in (
        Mixture("q4_k_s", 14, _Q4_K, (Wider(_VALUES, _first_four, _Q5_K), Wider(_DOWN, _first_eighth, _Q5_K))),
        Mixture("q4_k_m", 15, _Q4_K, _HALF_IN_Q6_K),
        Mixture("q5_k_s", 16, _Q5_K),
        Mixture("q5_k_m", 17, _Q5_K, _HALF_IN_Q6_K),
    )
}
