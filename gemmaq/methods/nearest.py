"""Round every weight to the nearest value the encoding's own rule allows: byte for byte what ggml does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemmaq.encodings import Encoding, codec
from gemmaq.errors import InputError

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Values


def quantize(x: F32, encoding: Encoding) -> Values:
    """Codes and scales of rows.

    Args:
        x: f32 [rows, columns], finite; columns a multiple of the encoding's block.

    Raises:
        InputError: the encoding can only be read.
    """
    nearest = codec(encoding).nearest
    if nearest is None:
        raise InputError(f"{encoding.label} can only be read")
    return nearest(x)
