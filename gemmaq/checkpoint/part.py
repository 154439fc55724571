"""One array of a tensor on disk, whose rows lie in one place or in several."""

from __future__ import annotations

from dataclasses import dataclass

from gemmaq.files.runs import Run, within
from gemmaq.files.span import FileSpan, Reader

GAPS = ("is a view whose numbers do not lie one behind the other", "save the model anew, best as safetensors")
"""Problem and hint where such an array cannot be read: all but matrices of floats."""


@dataclass(frozen=True, slots=True)
class Part:
    """One array of a tensor on disk.

    Attributes:
        span: The file.
        offset: Offset of the first byte.
        row_bytes: Bytes of a row.
        dtype: safetensors dtype of its numbers, where the layout leaves that open.
        scattered: Places of the rows where they do not lie one behind the other; `span` and `offset` are those of the
            first row.
    """

    span: FileSpan
    offset: int
    row_bytes: int
    dtype: str = "U8"
    scattered: tuple[Run, ...] = ()

    @property
    def spans(self) -> tuple[FileSpan, ...]:
        """Its files."""
        return tuple(dict.fromkeys(run.span or self.span for run in self.scattered)) or (self.span,)

    @property
    def is_strided(self) -> bool:
        """Whether its numbers do not lie one behind the other."""
        return any(run.strided is not None for run in self.scattered)

    def expect(self, reader: Reader, rows: int) -> None:
        """Say that so many rows, all of them, will be read soon; see `Reader.expect`."""
        if not self.scattered:
            reader.expect(self.span, self.offset, rows * self.row_bytes)

    def read(self, reader: Reader, first: int, count: int, target: memoryview) -> None:
        """Fill `target` with rows `first` to `first + count`.

        Raises:
            InputError: The file ends early or cannot be read.
        """
        if not self.scattered:
            reader.into(self.span, self.offset + first * self.row_bytes, target)
        done = 0
        for run, skipped, taken in within(self.scattered, first, count) if self.scattered else ():
            size, span = taken * self.row_bytes, run.span or self.span
            if run.zeros:
                target[done : done + size] = bytes(size)
            elif run.strided is not None:
                target[done : done + size] = run.strided.read(reader, span, run.offset, (skipped, taken)).data.cast("B")
            else:
                reader.into(span, run.offset + skipped * self.row_bytes, target[done : done + size])
            done += size
