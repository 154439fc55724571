"""GGUF types outside the registry (IQ4_XS, Q2_K, MXFP4, ...): readable through gguf-py, never written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemmaq.encodings import BY_GGML_TYPE, Codec, Encoding

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8


def by_ggml_type(number: int) -> Encoding | None:
    """The encoding with this type number in GGUF, None if there is none."""
    if number in BY_GGML_TYPE:
        return BY_GGML_TYPE[number]
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        return None
    block, size = GGML_QUANT_SIZES[kind]
    return Encoding(kind.name.lower(), number, block, size, "foreign")


class _Codecs:
    """A codec for any type gguf-py can dequantize."""

    def __getitem__(self, name: str) -> Codec:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        kind = GGMLQuantizationType[name.upper()]

        def read(raw: U8) -> F32:
            return dequantize(raw, kind)

        return Codec(read)


CODECS = _Codecs()
