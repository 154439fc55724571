"""The published sizes of Gemma 4."""

from __future__ import annotations

import pytest

from gemmaq import containers
from gemmaq.models.gemma4.sizes import SIZES
from gemmaq.models.size import Size
from gemmaq.planning import recipe
from gemmaq.planning.planner import make_plan
from gemmaq.planning.request import Request
from gemmaq.vram.weights import checkpoint_of

COUNTED = {"E2B": 4628569379, "E4B": 7463013418, "12B": 11907350320, "26B-A4B": 25233141790, "31B": 30697345340}
"""Weights of transformers' own models, built without memory."""


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.label)
def test_published_sizes_have_the_parameters_of_transformers_models(size: Size) -> None:
    assert size.config.parameters == COUNTED[size.label]


def test_names_are_those_of_the_repositories() -> None:
    assert [size.name for size in SIZES][3:] == ["gemma-4-26B-A4B", "gemma-4-31B"]
    assert {size.family for size in SIZES} == {"gemma4"}


PUBLISHED = {
    "E4B": 5_154_939_136,
    "26B-A4B": 14_439_361_440,
    "31B": 17_651_001_568,
}
"""Bytes of Google's QAT Q4_0 files; those of E2B and 12B are known to 10 MB only."""
ROUGHLY = {"E2B": 3.35e9, "12B": 6.98e9}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.label)
def test_planned_files_are_as_large_as_googles(size: Size) -> None:
    """All tensors Q4_0, both tables Q6_K, the projection F16; besides them a header with a tokenizer of 15.82 MB."""
    request = Request(recipe.of("q4_0", method="nearest"), ("gguf",))
    plan = make_plan(checkpoint_of(size), request, containers.writer("gguf").FORMAT)
    assert {kind: count for kind, count in plan.counts.items() if kind != "f32"} in (
        {"q4_0": 275, "q6_k": 2, "f16": 1},
        {"q4_0": 342, "q6_k": 2, "f16": 1},
        *({"q4_0": count, "q6_k": 1} for count in (328, 265, 410)),
    )
    if size.label in PUBLISHED:
        padding = 28 * size.config.num_hidden_layers  # factors of 4 bytes lie 32 bytes apart
        assert 15_820_000 < PUBLISHED[size.label] - plan.tensor_bytes - padding < 15_835_000
    else:
        assert plan.tensor_bytes + 15_821_792 == pytest.approx(ROUGHLY[size.label], abs=5e6)


def test_mixtures_have_the_types_of_published_files() -> None:
    """Numbers of tensors that llama.cpp's logs show for Q4_K_M files."""
    counts = {"12B": (337, 284, 45), "26B-A4B": (391, 192, 14)}
    for size in SIZES:
        if size.label in counts:
            request = Request(recipe.of("q4_k_m", method="nearest"), ("gguf",))
            found = make_plan(checkpoint_of(size), request, containers.writer("gguf").FORMAT).counts
            assert (found["f32"], found["q4_k"], found["q6_k"]) == counts[size.label]
            assert size.label == "12B" or (found["q5_0"], found["q8_0"]) == (32, 28)
