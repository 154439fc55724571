"""Mixtures: which matrices are wider, in small and large models; containers/test_gguf compares with llama-quantize."""

from __future__ import annotations

import pytest

from gemmaq.encodings import ENCODINGS
from gemmaq.planning.mixtures import MIXTURES, Mixture, Other, Spot


def apart(name: str, kind: str, layers: int, **facts: object) -> list[int]:
    """Layers whose matrix of a kind has another type than the body."""
    mixture = MIXTURES[name]
    spots = [Spot(kind, layer, layers, **facts) for layer in range(layers)]  # type: ignore[arg-type]
    return [spot.number for spot in spots if mixture.encoding_of(spot) != mixture.body]


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
def test_layers_with_another_type(name: str, kind: str, layers: int, expected: list[int]) -> None:
    assert apart(name, kind, layers) == expected


def test_iq4_nl_leaves_the_first_layers_to_an_importance_matrix() -> None:
    assert apart("iq4_nl", "down", 26, calibrated=True) == []
    assert apart("q4_k_s", "down", 26, calibrated=True) == [0, 1, 2]


def test_q4_0_and_q5_0_have_a_minimum_in_the_first_layers_where_errors_are_weighed() -> None:
    for name, other in (("q4_0", "q4_1"), ("q5_0", "q5_1")):
        assert apart(name, "down", 26, weighted=True) == apart(name, "experts down", 26, weighted=True) == [0, 1, 2]
        assert apart(name, "down", 26, calibrated=True) == apart(name, "up", 26, weighted=True) == []
        assert MIXTURES[name].encoding_of(Spot("down", 0, 8, weighted=True)) == ENCODINGS[other]


def test_types_of_q2_k_and_q3_k() -> None:
    def kinds(name: str, kind: str, **facts: int) -> list[str]:
        return [MIXTURES[name].encoding_of(Spot(kind, at, 16, **facts)).name for at in range(4)]

    assert kinds("q2_k", "down") == kinds("q2_k", "o_proj") == kinds("q2_k", "v_proj") == ["q3_k"] * 4
    assert kinds("q2_k", "v_proj", sharing=4) == ["q4_k"] * 4 and kinds("q2_k", "gate") == ["q2_k"] * 4
    assert kinds("q2_k_s", "experts down") == ["q4_k", "q4_k", "q2_k", "q2_k"]
    assert kinds("q3_k_m", "down") == ["q5_k", "q4_k", "q4_k", "q4_k"]
    assert kinds("q3_k_m", "v_proj") == ["q5_k", "q5_k", "q4_k", "q4_k"]
    assert kinds("q3_k_l", "v_proj") == ["q5_k"] * 4 and kinds("q3_k_s", "v_proj") == ["q3_k"] * 4


def test_types_of_the_mixtures_of_two_and_three_bits() -> None:
    def kinds(name: str, kind: str, **facts: object) -> list[str]:
        spots = [Spot(kind, at, 16, **facts) for at in range(4)]  # type: ignore[arg-type]
        return [MIXTURES[name].encoding_of(spot).name for spot in spots]

    assert kinds("iq3_xs", "up") == ["iq3_s", "iq3_s", "iq3_xxs", "iq3_xxs"] == kinds("iq3_xs", "experts gate+up")
    assert kinds("iq3_xxs", "v_proj", calibrated=True) == ["iq3_xxs"] * 4 and kinds("iq3_xxs", "k_proj")[0] == "iq2_s"
    assert kinds("iq3_xxs", "down") == ["q4_k", "q4_k", "q3_k", "q3_k"]
    assert kinds("iq2_m", "o_proj") == kinds("iq2_s", "v_proj") == ["iq3_s"] * 4
    assert kinds("iq2_s", "v_proj", experts=128) == kinds("iq2_xs", "v_proj", sharing=4) == ["q4_k"] * 4
    assert kinds("iq2_xs", "down") == ["q2_k", "q2_k", "iq2_xs", "iq2_xs"]
    assert kinds("iq2_xs", "down", experts=128) == kinds("iq2_xs", "experts down", experts=128)
    assert kinds("iq2_xs", "down", experts=128) == ["q2_k", "iq2_xs", "iq2_xs", "iq2_xs"]
    assert {name for name, m in MIXTURES.items() if m.head.name == "q5_k"} == {
        "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq3_xxs"
    }  # fmt: skip


def test_who_needs_an_importance_matrix() -> None:
    plain = {name for name, m in MIXTURES.items() if m.body.name.startswith("iq") and not m.needs_importance}
    assert plain == {"iq4_nl", "iq4_xs", "iq3_s", "iq3_m"}
    assert MIXTURES["q2_k_s"].needs_importance and not MIXTURES["q2_k"].needs_importance
    assert MIXTURES["q2_k_s"].weighs(ENCODINGS["q2_k"]) and not MIXTURES["q2_k_s"].weighs(ENCODINGS["q4_k"])


def test_the_first_exception_counts() -> None:
    q8_0, q6_k, q4_0 = (ENCODINGS[name] for name in ("q8_0", "q6_k", "q4_0"))
    mixture = Mixture(
        "toy", 99, q4_0, (Other(("a",), lambda s: s.number == 0, q8_0), Other(("a",), lambda s: True, q6_k))
    )
    assert [mixture.encoding_of(Spot("a", layer, 2)) for layer in (0, 1)] == [q8_0, q6_k]
    assert mixture.encoding_of(Spot("b", 0, 2)) == q4_0 and mixture.label == "TOY"
