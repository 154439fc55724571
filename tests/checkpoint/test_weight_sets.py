"""Sets of weight files by their names alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.checkpoint.weight_sets import INDEX, PICKLED_INDEX, is_usual, is_weight_file, named, sets

A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
BINS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
PLACES = {INDEX: {"x": A, "y": B}, PICKLED_INDEX: {"x": BINS[0], "y": BINS[1]}}


def index(name: str) -> Mapping[str, str]:
    return PLACES[name]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ([A, B, INDEX], [INDEX]),
        ([A, B, INDEX, "model.safetensors"], [INDEX, "model.safetensors"]),
        ([B, A], [A]),
        ([B], [A]),
        (["b.safetensors", "pytorch_model.bin", "model.safetensors"], ["model.safetensors", "pytorch_model.bin"]),
        ([*BINS, PICKLED_INDEX, "pytorch_model.bin"], [PICKLED_INDEX, "pytorch_model.bin"]),
        ([*BINS, A, B], [A, BINS[0]]),
        (["optimizer.bin", "pytorch_model.bin", "rng_state.pth"], ["pytorch_model.bin"]),
    ],
)
def test_sets_come_in_the_order_of_transformers(present: list[str], expected: list[str]) -> None:
    usual = [each.name for each in sets(present, index) if is_usual(each)]
    assert usual[: len(expected)] == expected
    assert not any(name in ("optimizer.bin", "rng_state.pth") for name in usual)


def test_any_file_of_a_set_means_it() -> None:
    found = sets([*BINS, A, B, INDEX, "optimizer.bin"], index)
    for name, expected in ((A, INDEX), (INDEX, INDEX), (BINS[1], BINS[0]), ("optimizer.bin", "optimizer.bin")):
        chosen = named(found, name)
        assert chosen is not None and chosen.name == expected
    assert named(found, "x") is None


FILES = [A, B, *BINS, INDEX, PICKLED_INDEX, "model.safetensors", "pytorch_model.bin", "a.safetensors", "b.pt"]


@given(st.lists(st.sampled_from(FILES), unique=True))
def test_every_file_belongs_to_a_set_and_missing_ones_are_not_there(present: list[str]) -> None:
    found = sets(present, index)
    files = [name for each in found for name in each.files if name not in each.missing]
    assert sorted(files) == sorted(name for name in present if not name.endswith(".json"))
    assert not any(name in present for each in found for name in each.missing)
    assert all(map(is_weight_file, present))
