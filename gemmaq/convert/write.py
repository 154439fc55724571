"""Write artifacts in one streaming pass over the source, with bounded memory, on several threads, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.artifact.outcomes import OutcomeCounter
from gemmaq.checkpoint import Tensor, paths_of, spans_of
from gemmaq.checkpoint.rows import Rows, read_rows, slabs
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
from gemmaq.models.arrangements import Arrangement
from gemmaq.models.roles import Role
from gemmaq.planning.plan import Plan, PlannedTensor
from gemmaq.planning.written import chosen
from gemmaq.progress import ProgressCallback

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Fused, Values

SLAB_ELEMENTS = 1 << 20
"""Weights a worker holds at a time; with f32 copies and codes about 12 MB."""

Finish = Callable[[Artifact, Path, OutcomeCounter], None]
"""Called with an artifact whose weights are written, the folder it lies in until the end, and the outcomes."""


@dataclass(frozen=True, slots=True)
class _Target:
    """Destination of rows: the planned tensor and its place, its plan, the container that packs it, the file."""

    placement: Placement
    plan: Plan
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
    inputs = set(paths_of(sources.values()))
    check_output(folder, sum(artifact.size for artifact in artifacts), inputs=inputs, force=force)
    outcomes = OutcomeCounter()
    with staging(folder, force) as stage, Reader() as reader:
        places = {artifact.folder: stage / artifact.folder.relative_to(folder) for artifact in artifacts}
        files = [(places[artifact.folder] / file.name, file) for artifact in artifacts for file in artifact.files]
        with opening(files, watch or _unwatched) as outputs:
            slabs = list(_slabs(artifacts, outputs))
            reader.open(spans_of(slab.source for slab in slabs))
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
    return lambda offset, data: None


def _slabs(artifacts: Sequence[Artifact], outputs: Sequence[Output]) -> Iterator[_Slab]:
    """The work, tensor by tensor in the order of the first artifact."""
    # by name, rows and solved codes: a container may want rows of zeros besides, and types have codes of their own
    targets: dict[tuple[str, int, Tensor | None], list[_Target]] = {}
    files = [(artifact.container, plan, file) for artifact in artifacts for plan, file in artifact.placed]
    for (container, plan, file), output in zip(files, outputs, strict=True):
        for placement in file.placements:
            target = _Target(placement, plan, container, output)
            source, solved = target.planned.source, target.planned.solved
            targets.setdefault((source.name, source.rows, solved), []).append(target)
    for group in targets.values():
        source = group[0].planned.stored
        whole = source.mixes_rows or any(target.planned.mixes_rows for target in group)
        for first, count in slabs(source, source.elements if whole else SLAB_ELEMENTS):
            yield _Slab(source, first, count, tuple(group))


def _process(slab: _Slab, reader: Reader, buffer: bytearray, outcomes: OutcomeCounter) -> None:
    """Read rows, decode and quantize them once, and pack and write them for every target."""
    rows = Rows(slab.source, read_rows(slab.source, slab.first, slab.count, reader, buffer))
    is_large = _check_finite(rows)
    chosen_by: dict[tuple[str, Choice, float, Arrangement | bool | None], Values] = {}
    packed: dict[tuple[object, ...], tuple[U8, ...]] = {}
    for target in slab.targets:
        planned = target.planned
        key = (planned.encoding.name, planned.choice, planned.shift, planned.moved and planned.arrangement)
        form = (target.container.FORMAT.name, planned.pieces, *key)
        if planned.copied:
            arrays: tuple[U8, ...] = (rows.arrays[0],)
        elif not is_large and (fused := at_once(planned, target.container)) is not None:
            if form not in packed:
                packed[form] = fused(rows.bits)
            arrays = packed[form]
        else:
            if key not in chosen_by:
                chosen_by[key] = chosen(planned, rows, slab.first)
            if is_large:
                _check_range(planned, chosen_by[key])
            if form not in packed:
                packed[form] = target.container.pack(planned, chosen_by[key])
            arrays = packed[form]
            outcomes.count(target.plan.key, planned, chosen_by[key])
        for piece, array in zip(target.placement.pieces, arrays, strict=True):
            data, done = array.reshape(-1).data, 0
            for offset, size in piece.places(slab.first, slab.count):
                run = data[done : done + size]
                write_all(target.output.descriptor, run, offset)
                target.output.wrote(offset, run)
                done += size


def at_once(planned: PlannedTensor, container: Writer) -> Fused | None:
    """The loop that makes a tensor's arrays of its stored rows as planned, if they are BF16 and it has one."""
    return container.fused(planned.encoding) if planned.rounds_bf16 else None


def _check_finite(rows: Rows) -> bool:
    """Whether some weight is beyond what FP16 holds.

    Looks at the stored bytes where these are BF16, which is half the work. A number without dimensions is a bound, and
    infinite where there is none.

    Raises:
        InputError: a weight is NaN, or infinite and no bound.
    """
    from gemmaq.encodings.kernels import largest_magnitude

    source = rows.tensor
    if source.encoding.name == "bf16":
        bits = np.uint32(largest_magnitude(rows.bits.reshape(-1), np.uint16(0x7FFF)) << 16)
    else:
        bits = np.uint32(largest_magnitude(rows.weights.reshape(-1).view(np.uint32), np.uint32(0x7FFFFFFF)))
    largest = bits.view(np.float32)
    if np.isinf(largest) and not source.shape:
        return False
    if not np.isfinite(largest):
        raise InputError("holds NaN or infinite weights", path=source.span, tensor=source.spelled)
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
        holds = "--mmproj bf16" if planned.source.place.role is Role.TOWER else "bf16"
        raise InputError(
            f"has weights too large for {planned.encoding.label}", f"{holds} holds them", tensor=planned.source.spelled
        )
