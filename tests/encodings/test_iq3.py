"""IQ3_XXS and IQ3_S in bytes; `test_grid_search` compares how codes are chosen."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize

from blocks import decode, same_weights
from gemmaq.encodings import ENCODINGS, codec

TYPES = ("iq3_xxs", "iq3_s")


@pytest.mark.parametrize("name", TYPES)
def test_any_bytes_read_as_gguf_py_reads_them(name: str) -> None:
    encoding = ENCODINGS[name]
    raw = np.random.default_rng(11).integers(0, 256, (64, encoding.row_bytes(1024)), np.uint8)
    with np.errstate(all="ignore"):
        theirs = gguf_dequantize(raw, GGMLQuantizationType[name.upper()])
    same_weights(decode(name, raw), theirs)


@pytest.mark.parametrize("name", TYPES)
def test_any_bytes_survive_reading_and_packing(name: str) -> None:
    encoding, random = ENCODINGS[name], np.random.default_rng(12)
    blocks = random.integers(0, 256, (63, encoding.block_bytes), np.uint8)
    blocks[:, :2] = random.standard_normal((63, 1)).astype("<f2").view(np.uint8)
    raw = blocks.reshape(21, -1)
    loops = codec(encoding)
    values = loops.read(raw)
    assert values.codes.shape == (21, 768) and values.codes.max() < len(encoding.codebook)
    assert np.array_equal(loops.pack(values), raw)
