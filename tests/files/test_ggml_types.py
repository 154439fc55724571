"""The table of ggml's types, against gguf-py's and against the registry of encodings."""

from __future__ import annotations

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from gemmaq.encodings import ENCODINGS
from gemmaq.files.ggml_types import TYPES


def test_types_are_those_of_gguf_py() -> None:
    expected = {int(kind): (kind.name, *GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType}
    assert {number: (kind.name, kind.block, kind.block_bytes) for number, kind in TYPES.items()} == expected


def test_encodings_agree() -> None:
    for encoding in ENCODINGS.values():
        if encoding.ggml_type is not None:
            kind = TYPES[encoding.ggml_type]
            assert (kind.name, kind.block, kind.block_bytes) == (encoding.label, encoding.block, encoding.block_bytes)
            assert kind.nbytes((3, 5, 512)) == 15 * encoding.row_bytes(512)
