"""Numbers in GGUF metadata are checked as they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gemmaq.errors import InputError
from gemmaq.models import gguf_numbers

GOOD = {"a.count": 7, "a.zero": 0, "a.rate": 0.1}


def read(keys: dict[str, Any]) -> dict[str, Any]:
    integers = {"count": "num_hidden_layers", "zero": "sharing"}
    floats = {"rate": "rate"}
    return gguf_numbers.read(keys, "a", integers=integers, floats=floats, required=("count",), from_zero=("zero",))


def test_numbers_are_read_by_field_and_fp32_loses_its_tail() -> None:
    assert read(GOOD | {"a.rate": float(np.float32(0.1))}) == {"num_hidden_layers": 7, "sharing": 0, "rate": 0.1}
    assert read({"a.count": 7}) == {"num_hidden_layers": 7}


@pytest.mark.parametrize(
    "change",
    [
        {"a.count": None},
        {"a.count": 0},
        {"a.count": True},
        {"a.count": "7"},
        {"a.count": 5000},
        {"a.zero": -1},
        {"a.rate": 0},
    ],
)
def test_what_is_no_number_of_that_kind_is_refused_by_its_key(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"a\.|block_count"):
        read(GOOD | change)


def test_one_number_stands_for_all_layers() -> None:
    assert gguf_numbers.per_layer({"k": 3}, "k", 2) == [3, 3]
    assert gguf_numbers.per_layer({"k": np.array([True, False])}, "k", 2) == [True, False]
    for value in (None, "ab", [1], True, 0):
        with pytest.raises(InputError, match="does not fit 2 layers"):
            gguf_numbers.per_layer({"k": value}, "k", 2)


def test_a_file_without_eos_ends_with_1() -> None:
    assert gguf_numbers.token_ids({"tokenizer.ggml.bos_token_id": 2}) == {
        "bos_token_id": 2, "eos_token_ids": (1,), "pad_token_id": None,
    }  # fmt: skip


def test_colors_are_three_numbers_or_left_out() -> None:
    keys = {"clip.vision.image_mean": np.full(3, 0.1, np.float32), "clip.vision.image_std": (0.5, 0.5)}
    assert gguf_numbers.colors(keys) == {"image_mean": (0.1, 0.1, 0.1)}
    assert gguf_numbers.colors({"clip.vision.image_mean": (float("nan"), 0, 0)}) == {}
