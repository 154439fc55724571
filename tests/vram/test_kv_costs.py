"""Types of a KV cache that are known to cost quality are warned of, with the figure."""

from __future__ import annotations

import pytest

from gemmaq.vram.engines.llama_cpp import KV_TYPES
from gemmaq.vram.kv_costs import MEASURED, cost, warning


def test_measured_types_are_those_of_llama_cpp() -> None:
    assert {kind for kinds in MEASURED for kind in kinds} <= set(KV_TYPES)
    assert {("q8_0", "q8_0"), ("q4_0", "q4_0")} <= set(MEASURED)
    assert MEASURED["q8_0", "q8_0"] < MEASURED["q5_0", "q5_0"] < MEASURED["q4_0", "q4_0"]


@pytest.mark.parametrize(
    "kinds", [("f16", "f16"), ("q8_0", "q8_0"), ("f16", "q8_0"), ("bf16", "f32"), ("q8_0", "q4_0")]
)
def test_types_that_cost_nothing_to_speak_of_are_not_warned_of(kinds: tuple[str, str]) -> None:
    assert warning(kinds) is None


def test_the_warning_has_the_figure_and_how_to_measure() -> None:
    said = warning(("q4_0", "q4_0"))
    found = cost(("q4_0", "q4_0"))
    assert said is not None and found is not None
    assert said.startswith("a q4_0 cache costs quality: ") and f"{found.kl:.2g} nats" in said
    assert said.endswith("measured on gemma-3-270m; measure yours with gemmaq evaluate MODEL --kv-type q4_0")


def test_keys_decide_where_types_were_not_measured_together() -> None:
    assert cost(("q4_1", "q5_0")) is None
    said = warning(("q4_1", "q5_0"))
    assert said is not None and said.startswith("keys in q4_1 cost quality: ") and said.endswith("--kv-type q4_1,q5_0")
    assert f"{MEASURED['q4_1', 'q4_1']:.2g} nats" in said
    assert warning(("q8_0", "q4_1")) is None
