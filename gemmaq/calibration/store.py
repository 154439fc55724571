"""Calibrated codes and scales, on disk until an artifact is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.checkpoint import Part, Tensor
from gemmaq.encodings import ENCODINGS, codec, dequantize
from gemmaq.encodings.bitstream import pack_codes, pack_floats
from gemmaq.errors import InputError
from gemmaq.files.span import FileSpan

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Encoding, Quantized


@dataclass(frozen=True, slots=True)
class Store:
    """A folder with a file for each tensor."""

    folder: Path

    def put(self, source: Tensor, encoding: Encoding, values: Quantized) -> Tensor:
        """Store codes and scales of a tensor.

        Args:
            source: the tensor that they were chosen for.
            encoding: their encoding.
            values: codes, and scales that the encoding's own layout holds exactly.

        Returns:
            The stored tensor.

        Raises:
            InputError: scales are too large for the layout.
            OSError: the file cannot be written.
        """
        loops = codec(encoding)
        if loops.pack is not None and loops.read is not None:
            arrays: list[U8] = [loops.pack(values)]
            if not np.isfinite(dequantize(encoding, loops.read(arrays[0]))).all():
                raise InputError(f"has weights too large for {encoding.label}", "bf16 holds them", tensor=source.name)
            dtypes, layout = ["U8"], "plain"
        else:
            minima = values.minima if values.minima is not None else np.float32(-(encoding.zero or 0)) * values.scales
            kinds = [ENCODINGS[encoding.scales], ENCODINGS[encoding.scales if encoding.zero is None else "f32"]]
            arrays = [
                pack_codes(encoding.bits, values.codes),
                pack_floats(kinds[0], values.scales),
                pack_floats(kinds[1], minima),
            ]
            dtypes, layout = ["U32", *(kind.label for kind in kinds)], "mlx"
        path = self.folder / f"{source.name}.codes"
        with path.open("xb") as file:
            for array in arrays:
                file.write(array.data)
        span, parts, at = FileSpan.of(path), [], 0
        for array, dtype in zip(arrays, dtypes, strict=True):
            parts.append(Part(span, at, array.nbytes // source.rows, dtype))
            at += array.nbytes
        return Tensor(source.name, source.shape, encoding, tuple(parts), layout)
