"""Calibrated codes and scales, on disk until an artifact is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration.gptq import Blocks
from gemmaq.checkpoint import Part, Tensor
from gemmaq.encodings import ENCODINGS, codec, dequantize
from gemmaq.encodings.bitstream import pack_codes, pack_floats
from gemmaq.errors import InputError
from gemmaq.files.span import FileSpan

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Encoding, Quantized
    from gemmaq.planning.plan import PlannedTensor


@dataclass(frozen=True, slots=True)
class Problem:
    """A matrix of the layers, or a stack of experts, whose codes are chosen for a type.

    Attributes:
        source: the matrix.
        encoding: type of the codes.
        portable: whether BF16 and FP16 must both hold the scales.
    """

    source: Tensor
    encoding: Encoding
    portable: bool = False

    @classmethod
    def of(cls, planned: PlannedTensor) -> Problem:
        """What has to be solved for a planned tensor: the same for all plans that want the same codes."""
        return cls(planned.source, planned.encoding, planned.choice.portable)

    @property
    def stem(self) -> str:
        """Name of its files, but for the ending."""
        return f"{self.source.name}.{self.encoding.name}" + (".portable" if self.portable else "")


def by_blocks(problems: Iterable[Problem]) -> dict[Blocks, list[Problem]]:
    """Problems by the blocks of their types.

    The order of columns, and the inverse of the Hessian with it, is another one for other blocks.
    """
    found: dict[Blocks, list[Problem]] = {}
    for problem in problems:
        found.setdefault(Blocks.of(problem.encoding), []).append(problem)
    return found


@dataclass(frozen=True, slots=True)
class Store:
    """A folder with a file for each array of a tensor that was solved."""

    folder: Path

    def append(self, problem: Problem, arrays: Sequence[U8]) -> None:
        """Store codes and scales of a matrix, or of the next one of a stack, or of rows that follow.

        Args:
            problem: what they were chosen for.
            arrays: see `packed`.

        Raises:
            OSError: a file cannot be written.
        """
        for number, array in enumerate(arrays):
            with self._path(problem, number).open("ab") as file:
                file.write(array.data)

    def tensor(self, problem: Problem) -> Tensor:
        """The stored tensor, when all its matrices are there."""
        source, encoding = problem.source, problem.encoding
        dtypes: tuple[str, ...] = ("U8",)
        layout = "plain"
        if not _has_layout(encoding):
            dtypes, layout = ("U32", *(kind.label for kind in _numbers(encoding))), "mlx"
        parts = []
        for number, dtype in enumerate(dtypes):
            span = FileSpan.of(self._path(problem, number))
            parts.append(Part(span, 0, span.size // source.rows, dtype))
        return Tensor(source.name, source.shape, encoding, tuple(parts), layout)

    def _path(self, problem: Problem, number: int) -> Path:
        return self.folder / f"{problem.stem}.{number}"


def _has_layout(encoding: Encoding) -> bool:
    """Whether files hold codes and scales of an encoding in blocks of its own."""
    loops = codec(encoding)
    return loops.pack is not None and loops.read is not None


def _numbers(encoding: Encoding) -> tuple[Encoding, Encoding]:
    """Number types of scales and minima in the layout of types that have none of their own."""
    return ENCODINGS[encoding.scales], ENCODINGS[encoding.scales if encoding.zero is None else "f32"]


def packed(problem: Problem, values: Quantized) -> list[U8]:
    """Arrays of codes and scales as the store keeps them, a row for every row of the matrix.

    Args:
        problem: what they were chosen for.
        values: codes, and scales that the encoding's own layout holds exactly.

    Raises:
        InputError: scales are too large for the layout.
    """
    encoding, loops = problem.encoding, codec(problem.encoding)
    if loops.pack is not None and loops.read is not None:
        array = loops.pack(values)
        if not np.isfinite(dequantize(encoding, loops.read(array))).all():
            name = problem.source.name
            raise InputError(f"has weights too large for {encoding.label}", "bf16 holds them", tensor=name)
        return [array]
    minima = values.minima if values.minima is not None else np.float32(-(encoding.zero or 0)) * values.scales
    kinds = _numbers(encoding)
    return [
        pack_codes(encoding.bits, values.codes), pack_floats(kinds[0], values.scales), pack_floats(kinds[1], minima)
    ]  # fmt: skip
