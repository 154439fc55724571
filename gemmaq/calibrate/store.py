"""Codes and scales that have been chosen, kept on disk until they are written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemmaq.checkpoint import Part, Tensor
from gemmaq.checkpoint.blob import Blob
from gemmaq.containers import floats, words
from gemmaq.encodings import ENCODINGS, codec

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Encoding, Quantized

_SCALES = "bf16"


@dataclass(frozen=True, slots=True)
class Store:
    """A folder for them, a file for each tensor."""

    folder: Path

    def put(self, source: Tensor, encoding: Encoding, values: Quantized) -> Tensor:
        """Keep what was chosen for a tensor; scales must be numbers that the encoding's own layout holds.

        Returns:
            The tensor as it lies there now.

        Raises:
            OSError: it cannot be written.
        """
        pack = codec(encoding).pack
        if pack is not None:
            arrays: list[U8] = [pack(values)]
            dtypes, layout = ["U8"], "plain"
        else:
            assert values.minima is not None
            kind = ENCODINGS[_SCALES]
            arrays = [words(encoding.bits, values), floats(kind, values.scales), floats(kind, values.minima)]
            dtypes, layout = ["U32", kind.label, kind.label], "mlx"
        path = self.folder / f"{source.name}.codes"
        with path.open("xb") as file:
            for array in arrays:
                file.write(array.data)
        blob, parts, at = Blob.of(path), [], 0
        for array, dtype in zip(arrays, dtypes, strict=True):
            parts.append(Part(blob, at, array.nbytes // source.rows, dtype))
            at += array.nbytes
        return Tensor(source.name, source.shape, encoding, tuple(parts), layout)
