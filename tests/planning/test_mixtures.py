"""Mixtures: which matrices are wider, in small and large models; containers/test_gguf compares with llama-quantize."""

from __future__ import annotations

import pytest

from gemmaq.encodings import ENCODINGS
from gemmaq.planning.mixtures import MIXTURES, Mixture, Spot, Wider


def wider(name: str, kind: str, layers: int, **facts: object) -> list[int]:
    """Layers whose matrix of a kind is wider than the body."""
    mixture = MIXTURES[name]
    spots = [Spot(kind, layer, layers, **facts) for layer in range(layers)]  # type: ignore[arg-type]
    return [spot.layer for spot in spots if mixture.encoding_of(spot) != mixture.body]


@pytest.mark.parametrize(
    ("name", "kind", "layers", "expected"),
    [
        ("q4_k_s", "down", 26, [0, 1, 2]),
        ("q4_k_s", "down", 7, []),
        ("q4_k_m", "down", 16, [0, 1, 4, 7, 10, 13, 14, 15]),
        ("q5_k_s", "down", 16, []),
        ("q5_k_m", "gate", 16, []),
        ("iq4_nl", "down", 26, [0, 1, 2]),
    ],
)
def test_layers_that_are_wider(name: str, kind: str, layers: int, expected: list[int]) -> None:
    assert wider(name, kind, layers) == expected


def test_iq4_nl_leaves_the_first_layers_to_an_importance_matrix() -> None:
    assert wider("iq4_nl", "down", 26, weighted=True) == []
    assert wider("q4_k_s", "down", 26, weighted=True) == [0, 1, 2]


def test_the_first_exception_counts() -> None:
    q8_0, q6_k, q4_0 = (ENCODINGS[name] for name in ("q8_0", "q6_k", "q4_0"))
    mixture = Mixture("toy", 99, q4_0, (Wider("a", lambda s: s.layer == 0, q8_0), Wider("a", lambda s: True, q6_k)))
    assert [mixture.encoding_of(Spot("a", layer, 2)) for layer in (0, 1)] == [q8_0, q6_k]
    assert mixture.encoding_of(Spot("b", 0, 2)) == q4_0 and mixture.label == "TOY"
