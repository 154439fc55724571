"""Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0: the bytes of gguf-py, which needs no library of llama.cpp."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import quantize as gguf_quantize

from blocks import LEGACY, encode, odd_weights, same_bytes, ties


@pytest.mark.parametrize("kind", ("normal", "ties", "on a grid", "all zero", "one value"))
@pytest.mark.parametrize("name", LEGACY)
def test_weights_get_the_bytes_of_gguf_py(name, kind):
    normal = np.random.default_rng(3).standard_normal((256, 1024), np.float32)
    x = {"normal": normal, "ties": ties(name), **odd_weights()}[kind]
    with np.errstate(all="ignore"):
        same_bytes(encode(name, x), gguf_quantize(x, GGMLQuantizationType[name.upper()]), x)
