"""Types by name, and codes as weights."""

from __future__ import annotations

import numpy as np
import pytest

from gemmaq.encodings import ENCODINGS, Quantized, dequantize, find, listed
from gemmaq.errors import UsageError


def test_a_weight_of_a_codebook_is_its_level_times_the_scale() -> None:
    encoding = ENCODINGS["iq4_nl"]
    codes = np.arange(64, dtype=np.uint8).reshape(2, 32) % 16
    scales = np.array([[0.5], [-2]], np.float32)
    levels = np.array(encoding.codebook, np.float32)
    assert np.array_equal(dequantize(encoding, Quantized(codes, scales)), scales * levels[codes])


def test_an_unknown_type_is_refused_with_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match="unknown type 'q4_o'") as caught:
        find("q4_o")
    assert "did you mean q4_" in str(caught.value.hint)


def test_a_word_that_is_no_type_is_refused_with_all_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown type 'xyz'") as caught:
        find("xyz")
    assert all(name in str(caught.value.hint) for name in listed(ENCODINGS))
