"""F32, F16 and BF16: every bit pattern is rounded as torch and gguf-py round it."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import quantize as gguf_quantize

from blocks import FLOATS, decode, encode, same_weights
from oracles import need


def bit_patterns() -> np.ndarray:
    """Random F32 of every exponent, and all neighbours of the halfway points of BF16 and F16; no NaN."""
    random = np.random.default_rng(13)
    anything = random.integers(0, 1 << 32, 1 << 18, np.uint32)
    top = random.integers(0, 1 << 16, 1 << 12, np.uint32) << 16
    near_bf16 = (top[:, None] | np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)).reshape(-1)
    near_f16 = (top[:, None] | np.array([0xFFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x3001], np.uint32)).reshape(-1)
    x = np.concatenate([anything, near_bf16, near_f16]).view(np.float32)
    return np.resize(x[~np.isnan(x)], (64, 4096))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ("bf16", "f16"))
def test_floats_round_as_torch_rounds(require, name):
    need(require, "torch")
    import torch

    x = bit_patterns()
    rounded = torch.from_numpy(x).to({"bf16": torch.bfloat16, "f16": torch.float16}[name])
    raw = encode(name, x)
    np.testing.assert_array_equal(raw.view(np.int16), rounded.view(torch.int16).numpy())
    same_weights(decode(name, raw), rounded.float().numpy())


@pytest.mark.parametrize("name", FLOATS)
def test_floats_round_as_gguf_py_rounds(name):
    x = bit_patterns()
    with np.errstate(all="ignore"):
        theirs = gguf_quantize(x, GGMLQuantizationType[name.upper()])
    np.testing.assert_array_equal(encode(name, x), theirs.view(np.uint8).reshape(len(x), -1))
