"""Compare an artifact with its source: every byte is made again, and the errors of the weights are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gemmaq import __version__
from gemmaq.artifact.provenance import Provenance
from gemmaq.calibration.complete import Basis
from gemmaq.checkpoint import Checkpoint, Part, Tensor
from gemmaq.containers.layout import OutputFile, StoredArray
from gemmaq.convert.compare import Compared, Pair, compare
from gemmaq.convert.layout import Artifact, lay_out, make_plans
from gemmaq.convert.run import Conversion, Options, artifacts
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError
from gemmaq.planning.plan import PlannedTensor
from gemmaq.planning.survey import fits_for
from gemmaq.progress import ProgressCallback
from gemmaq.verify.structure import arrays


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of comparing an artifact with its source.

    Attributes:
        tensors: tensors that both have, in the order of the source.
        problems: a sentence for each difference from what gemmaq makes of the source.
        notes: differences that another version of gemmaq may have made, and codes that were not checked.
    """

    tensors: tuple[Compared, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def with_recipe(
    folder: Path,
    record: Provenance,
    source: Checkpoint,
    *,
    options: Options,
    progress: ProgressCallback,
    basis: Basis | None = None,
) -> Comparison:
    """Convert the source again with the recorded recipe, a slab at a time in memory, and compare.

    Args:
        folder: folder of the artifact.
        record: content of its gemmaq.json.
        source: checkpoint that it was made of.
        options: threads and device.
        progress: called after every slab and every layer.
        basis: text or importance matrix that codes were calibrated on; None to leave such codes unchecked.

    Raises:
        InputError: the source is unusable, or cannot be made into such an artifact.
    """
    source, request = replace(source, name=record.name), record.request
    plans = make_plans(source, request, fits_for(source, request), only=[record.container])
    if basis is None:
        (artifact,) = lay_out(source, plans, request, folder)
        return _compare(folder, record, artifact, source=source, threads=options.threads, progress=progress)
    with artifacts(Conversion(source, request, folder, basis), plans, options, progress) as (artifact,):
        return _compare(folder, record, artifact, source=source, threads=options.threads, progress=progress)


def _compare(
    folder: Path,
    record: Provenance,
    artifact: Artifact,
    *,
    source: Checkpoint,
    threads: int,
    progress: ProgressCallback,
) -> Comparison:
    """Compare a folder with the artifact that gemmaq makes of the source."""
    stored, target = arrays(folder, record.container), artifact.container.FORMAT
    pairs, problems, unchecked = [], [], 0
    for planned in artifact.plan.everything:
        parts = [stored.pop(name, None) for name in planned.array_names]
        for constant in target.constants(planned.name, planned.shape, planned.encoding):
            stored.pop(constant.name, None)
        tensor = _as_tensor(planned, target.layout, [part for part in parts if part is not None])
        if tensor is None:
            problems.append(f"tensor {planned.name} is not there as {planned.encoding.label} {list(planned.shape)}")
        elif not planned.is_complete:
            pairs.append(Pair(planned.name, planned.source, tensor))
            unchecked += 1
        else:
            pairs.append(Pair(planned.name, planned.source, tensor, planned, artifact.container))
    problems += [f"tensor {name} is not made of {source.location}" for name in stored]
    compared = compare(pairs, threads=threads, progress=progress)
    for tensors in compared:
        if tensors.equal is False:
            problems.append(
                f"tensor {tensors.name} is not what gemmaq makes of {source.location}: {_difference(tensors)}"
            )
    differences = (_file_difference(folder / file.name, file) for file in artifact.files)
    others = [difference for difference in differences if difference]
    notes = [_unchecked(record, unchecked)] if unchecked else []
    if record.version == __version__:
        return Comparison(tuple(compared), (*problems, *others), tuple(notes))
    notes += (f"{other} (written by gemmaq {record.version}, this is {__version__})" for other in others)
    return Comparison(tuple(compared), tuple(problems), tuple(notes))


def _unchecked(record: Provenance, count: int) -> str:
    """A note about calibrated codes that could not be chosen again."""
    calibration = record.request.calibration
    names = ", ".join(calibration.texts) if calibration and calibration.texts else "an importance matrix"
    flag = "--text" if calibration and calibration.texts else "--imatrix"
    return f"the codes of {count} tensors were calibrated on {names} and are not checked: give it with {flag}"


def _difference(tensor: Compared) -> str:
    codes = "weights" if ENCODINGS[tensor.encoding].is_float else "codes"
    if tensor.differing:
        return f"{tensor.differing:,} of {tensor.elements:,} {codes} differ"
    return "codes are equal, scales are not"


def without_recipe(model: Checkpoint, source: Checkpoint, *, threads: int, progress: ProgressCallback) -> Comparison:
    """Compare the weights of a model without gemmaq.json with those of a source; arguments as for `with_recipe`."""
    pairs, problems = [], []
    tensors = {**model.tensors, **model.vision}
    originals = {**source.tensors, **source.vision}
    for name, tensor in tensors.items():
        original = originals.get(name)
        if original is None:
            problems.append(f"tensor {name} is not in {source.location}")
        elif tensor.shape != original.shape:
            shape = list(original.shape)
            problems.append(f"tensor {name} has the shape {list(tensor.shape)}, in {source.location} {shape}")
        else:
            pairs.append(Pair(name, original, tensor))
    problems += [f"tensor {name} of {source.location} is missing" for name in source.tensors if name not in tensors]
    return Comparison(tuple(compare(pairs, threads=threads, progress=progress)), tuple(problems))


def _as_tensor(planned: PlannedTensor, layout: str, arrays: Sequence[StoredArray]) -> Tensor | None:
    """A tensor of the artifact that reads as the source's weights; None if its arrays are not as planned."""
    rows = planned.source.rows
    sizes = [rows * piece.row_bytes for piece in planned.pieces]
    dtypes = [piece.dtype for piece in planned.pieces]
    if [(array.dtype, array.nbytes) for array in arrays] != list(zip(dtypes, sizes, strict=True)):
        return None
    parts = tuple(
        Part(array.span, array.offset, piece.row_bytes, piece.dtype)
        for array, piece in zip(arrays, planned.pieces, strict=True)
    )
    layout = "plain" if len(parts) == 1 else layout
    shift = planned.source.shift - planned.shift
    return Tensor(
        planned.source.name, planned.source.shape, planned.encoding, parts, layout, shift, planned.channels_last
    )


def _file_difference(path: Path, file: OutputFile) -> str | None:
    """Difference of a file outside its tensors: its size, or the bytes ahead of them."""
    try:
        if path.stat().st_size != file.size:
            return f"{path.name} has {path.stat().st_size:,} bytes, gemmaq writes {file.size:,}"
        with path.open("rb") as stream:
            if stream.read(len(file.head)) == file.head:
                return None
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    what = "its header is" if file.placements else "it is"
    return f"{path.name}: {what} not what gemmaq writes"
