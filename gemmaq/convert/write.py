"""Write artifacts in one streaming pass over the source, with bounded memory, on several threads, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq import methods
from gemmaq.artifact.outcomes import OutcomeCounter
from gemmaq.checkpoint import Tensor
from gemmaq.checkpoint.rows import read_rows, values_of
from gemmaq.containers import Writer
from gemmaq.containers.layout import OutputFile, Placement
from gemmaq.convert.layout import Artifact
from gemmaq.convert.outputs import Output, Watch, Wrote, flushing, opening, sync, write_all
from gemmaq.convert.workers import run_all
from gemmaq.encodings import codec, dequantize
from gemmaq.errors import InputError
from gemmaq.files.atomic import check_output, staging
from gemmaq.files.span import Reader
from gemmaq.methods import Choice
from gemmaq.planning.plan import PlannedTensor
from gemmaq.progress import ProgressCallback

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8, Values

SLAB_ELEMENTS = 1 << 19
"""Weights a worker holds at a time; with f32 copies and codes about 6 MB."""

Finish = Callable[[Artifact, Path, OutcomeCounter], None]
"""Called with an artifact whose weights are written, the folder it lies in until the end, and the outcomes."""


@dataclass(frozen=True, slots=True)
class _Target:
    """Destination of a tensor's rows: the planned tensor and its place, the container that packs it, an open file."""

    placement: Placement
    container: Writer
    output: Output

    @property
    def planned(self) -> PlannedTensor:
        return self.placement.tensor


@dataclass(frozen=True, slots=True)
class _Slab:
    """Rows `first` to `first + count` of a source tensor, and their destinations."""

    source: Tensor
    first: int
    count: int
    targets: tuple[_Target, ...]

    @property
    def nbytes(self) -> int:
        """Source bytes of the rows."""
        return self.count * self.source.row_bytes


def write(
    artifacts: Sequence[Artifact],
    folder: Path,
    *,
    threads: int,
    progress: ProgressCallback,
    force: bool = False,
    finish: Finish | None = None,
    watch: Watch | None = None,
) -> OutcomeCounter:
    """Write artifacts that come from one checkpoint, reading and quantizing every weight once.

    All files are made under a temporary name beside `folder` and appear under it together, or not at all.

    Args:
        artifacts: their folders are `folder` or lie in it.
        threads: number of workers.
        progress: called after every slab.
        force: replace `folder` if it holds an earlier artifact.
        finish: adds the side files to each artifact before it gets its final name.
        watch: follows the writing of each file.

    Returns:
        How each tensor came out.

    Raises:
        InputError: the source is damaged, or holds NaN or infinite weights.
        OutputError: the output exists, does not fit, or cannot be written.
    """
    sources = {p.tensor.source.name: p.tensor.stored for a in artifacts for f in a.files for p in f.placements}
    inputs = {path for tensor in sources.values() for part in tensor.parts for path in part.span.paths}
    check_output(folder, sum(artifact.size for artifact in artifacts), inputs=inputs, force=force)
    outcomes = OutcomeCounter()
    with staging(folder, force) as stage, Reader() as reader:
        places = {artifact.folder: stage / artifact.folder.relative_to(folder) for artifact in artifacts}
        files = [(places[artifact.folder] / file.name, file) for artifact in artifacts for file in artifact.files]
        with opening(files, watch or _unwatched) as outputs:
            slabs = list(_slabs(artifacts, outputs))
            reader.open([part.span for slab in slabs for part in slab.source.parts])
            with flushing(outputs):
                run_all(
                    lambda slab, buffer: _process(slab, reader, buffer, outcomes),
                    slabs,
                    buffers=bytearray,
                    threads=threads,
                    task=f"writing {folder}",
                    progress=progress,
                )
            sync(outputs)
        if finish is not None:
            for artifact in artifacts:
                finish(artifact, places[artifact.folder], outcomes)
    return outcomes


def _unwatched(path: Path, file: OutputFile) -> Wrote:
    """Ignore what is written."""
    return lambda placement, rows: None


def _slabs(artifacts: Sequence[Artifact], outputs: Sequence[Output]) -> Iterator[_Slab]:
    """The work, tensor by tensor in the order of the first artifact."""
    targets: dict[str, list[_Target]] = {}
    files = [(artifact.container, file) for artifact in artifacts for file in artifact.files]
    for (container, file), output in zip(files, outputs, strict=True):
        for placement in file.placements:
            target = _Target(placement, container, output)
            targets.setdefault(target.planned.source.name, []).append(target)
    for group in targets.values():
        source = group[0].planned.stored
        whole = any(target.planned.moved for target in group)
        step = source.rows if whole else max(1, SLAB_ELEMENTS // source.columns)
        for first in range(0, source.rows, step):
            yield _Slab(source, first, min(step, source.rows - first), tuple(group))


def _process(slab: _Slab, reader: Reader, buffer: bytearray, outcomes: OutcomeCounter) -> None:
    """Read rows, decode and quantize them once, and pack and write them for every target."""
    source = slab.source
    stored = read_rows(source, slab.first, slab.count, reader, buffer)
    values = values_of(source, stored)
    weights = dequantize(source.encoding, values)
    is_large = _check_finite(source, stored[0], weights)
    chosen_by: dict[tuple[str, Choice, float, bool], Values] = {}
    for target in slab.targets:
        planned = target.planned
        if planned.copied:
            arrays: tuple[U8, ...] = (stored[0],)
        else:
            key = (planned.encoding.name, planned.choice, planned.shift, planned.moved)
            if key not in chosen_by:
                chosen_by[key] = chosen(planned, values, weights)
            if is_large:
                _check_range(planned, chosen_by[key])
            arrays = target.container.pack(planned, chosen_by[key])
            outcomes.count(target.container.FORMAT.name, planned, chosen_by[key])
        for piece, array in zip(target.placement.pieces, arrays, strict=True):
            write_all(target.output.descriptor, array.reshape(-1).data, piece.offset + slab.first * piece.row_bytes)
        target.output.wrote(target.placement, slab.count)


def chosen(planned: PlannedTensor, values: Values, weights: F32) -> Values:
    """Quantize rows as planned.

    Args:
        planned: the plan of their tensor; if it permutes axes, the rows must be the whole tensor.
        values: codes and scales of the rows in the source.
        weights: weights of the rows, f32 [rows, columns].
    """
    if planned.keeps_codes and not planned.moved:
        return values
    shifted = weights + np.float32(planned.shift) if planned.shift else weights
    return methods.quantize(_ordered(shifted, planned), planned.encoding, planned.choice)


def _ordered(weights: F32, planned: PlannedTensor) -> F32:
    """A whole tensor with its axes in the order of the target, in rows of the same length."""
    if not planned.moved:
        return weights
    rows, channels, height, width = planned.source.shape
    if planned.channels_last:
        moved = weights.reshape(rows, channels, height, width).transpose(0, 2, 3, 1)
    else:
        moved = weights.reshape(rows, height, width, channels).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(moved).reshape(weights.shape)


def _check_finite(source: Tensor, stored: U8, weights: F32) -> bool:
    """Whether some weight is beyond what FP16 holds.

    Looks at the stored bytes where these are BF16, which is half the work.

    Raises:
        InputError: a weight is NaN or infinite.
    """
    from gemmaq.encodings.kernels import largest_magnitude

    if source.encoding.name == "bf16":
        bits = np.uint32(largest_magnitude(stored.reshape(-1).view(np.uint16), np.uint16(0x7FFF)) << 16)
    else:
        bits = np.uint32(largest_magnitude(weights.reshape(-1).view(np.uint32), np.uint32(0x7FFFFFFF)))
    largest = bits.view(np.float32)
    if not np.isfinite(largest):
        raise InputError("holds NaN or infinite weights", path=source.span, tensor=source.name)
    return bool(largest >= np.finfo(np.float16).max)


def _check_range(planned: PlannedTensor, values: Values) -> None:
    """Refuse weights or scales that become infinite when stored.

    Raises:
        InputError: naming the tensor and what would hold it.
    """
    loops = codec(planned.encoding)
    if loops.pack is None or loops.read is None:
        return  # MLX's own types have BF16 scales, which hold anything
    if not np.isfinite(dequantize(planned.encoding, loops.read(loops.pack(values)))).all():
        raise InputError(
            f"has weights too large for {planned.encoding.label}", "bf16 holds them", tensor=planned.source.name
        )
