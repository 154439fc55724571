"""Types of GGUF that gemmaq only reads: gguf-py's weights, and no way to write them."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize

from blocks import same_weights
from gemmaq.encodings import ENCODINGS, Kind, codec, dequantize
from gemmaq.encodings.foreign import by_ggml_type
from gemmaq.errors import InputError
from gemmaq.methods import Choice, quantize


@pytest.mark.parametrize("name", ("IQ1_M", "IQ1_S", "TQ1_0", "NVFP4"))
def test_any_bytes_read_as_gguf_py_reads_them(name: str) -> None:
    ggml_type = GGMLQuantizationType[name]
    encoding = by_ggml_type(int(ggml_type))
    assert encoding is not None and (encoding.kind, encoding.label) == (Kind.OPAQUE, name)
    raw = np.random.default_rng(1).integers(0, 256, (4, encoding.row_bytes(512)), np.uint8)
    with np.errstate(all="ignore"):
        same_weights(dequantize(encoding, codec(encoding).read(raw)), gguf_dequantize(raw, ggml_type))


def test_they_are_never_written() -> None:
    encoding = by_ggml_type(int(GGMLQuantizationType.IQ1_S))
    assert encoding is not None
    with pytest.raises(InputError, match="IQ1_S can only be read"):
        quantize(np.zeros((1, 256), np.float32), encoding, Choice("nearest"))
    assert not any(encoding.same_codes(other) for other in ENCODINGS.values())


def test_types_of_the_registry_come_first() -> None:
    assert by_ggml_type(2) == ENCODINGS["q4_0"]
    assert by_ggml_type(20) == ENCODINGS["iq4_nl"]
    assert by_ggml_type(4) is None


@pytest.mark.parametrize("name", ("I8", "I16", "I32", "I64", "F64"))
def test_types_that_hold_no_weights_are_none(name: str) -> None:
    assert by_ggml_type(int(GGMLQuantizationType[name])) is None
