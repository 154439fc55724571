"""GGUF types outside the registry (IQ1_S, TQ1_0, ...): read through gguf-py, never written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gemmaq.encodings import Codec, Encoding, Kind
from gemmaq.encodings import by_ggml_type as registered

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8


def by_ggml_type(number: int) -> Encoding | None:
    """The encoding with this type number in GGUF, one that can only be read included; None if no weights are read."""
    encoding = registered(number)
    if encoding is not None:
        return encoding
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        ggml_type = GGMLQuantizationType(number)
        block, size = GGML_QUANT_SIZES[ggml_type]
        dequantize(np.zeros((1, size), np.uint8), ggml_type)
    except (ValueError, NotImplementedError):  # no type, or one like I32
        return None
    return Encoding(ggml_type.name.lower(), Kind.OPAQUE, block, size, "foreign", ggml_type=number)


class _Codecs:
    """Codecs by type name, for every type that gguf-py can dequantize."""

    def __getitem__(self, name: str) -> Codec:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        ggml_type = GGMLQuantizationType[name.upper()]

        def read(raw: U8) -> F32:
            return dequantize(raw, ggml_type)

        return Codec(read)


CODECS = _Codecs()
