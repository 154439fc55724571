"""An artifact against the source it is said to be made of: every byte derived again, and how far it is from it."""

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
    """An artifact and its source.

    Attributes:
        tensors: that both have, in the order of the source.
        problems: whatever is not as gemmaq makes it, a sentence each.
        notes: what another version of gemmaq wrote otherwise beside the tensors.
    """

    tensors: tuple[Compared, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def with_recipe(
    folder: Path,
    known: Provenance,
    source: Checkpoint,
    *,
    options: Options,
    progress: ProgressCallback,
    basis: Basis | None = None,
) -> Comparison:
    """Derive everything again from the source with the recorded recipe, a slab at a time, and compare.

    Codes that were calibrated can be derived again only with what they were calibrated on.

    Args:
        folder: of the artifact.
        known: what its gemmaq.json says.
        source: that it is said to be made of.
        options: threads and device.
        progress: called with source bytes done and in total.
        basis: text or importance matrix that codes were calibrated on; None to leave such codes unchecked.

    Raises:
        InputError: the source is unusable, or cannot be made into such an artifact.
    """
    source = replace(source, name=known.name)
    plans = make_plans(source, known.request, fits_for(source, known.request), only=[known.container])
    if basis is None:
        (artifact,) = lay_out(source, plans, known.request, folder)
        return _compared(folder, known, artifact, source=source, threads=options.threads, progress=progress)
    with artifacts(Conversion(source, known.request, folder, basis), plans, options, progress) as (artifact,):
        return _compared(folder, known, artifact, source=source, threads=options.threads, progress=progress)


def _compared(
    folder: Path, known: Provenance, artifact: Artifact, *, source: Checkpoint, threads: int, progress: ProgressCallback
) -> Comparison:
    """Compare every tensor and header of a folder with the artifact that gemmaq makes of the source."""
    found = arrays(folder, known.container)
    target = artifact.container.FORMAT
    pairs, problems, unknown = [], [], 0
    for planned in artifact.plan.everything:
        there = [found.pop(name, None) for name in _names(planned)]
        for constant in target.constants(planned.name, planned.shape, planned.encoding):
            found.pop(constant.name, None)
        made = _as_tensor(planned, target.layout, [array for array in there if array is not None])
        if made is None:
            problems.append(f"tensor {planned.name} is not there as {planned.encoding.label} {list(planned.shape)}")
        elif not planned.is_complete:
            pairs.append(Pair(planned.name, planned.source, made))
            unknown += 1
        else:
            pairs.append(Pair(planned.name, planned.source, made, planned, artifact.container))
    problems += [f"tensor {name} is not made of {source.location}" for name in found]
    compared = compare(pairs, threads=threads, progress=progress)
    for tensor in compared:
        if tensor.equal is False:
            problems.append(f"tensor {tensor.name} is not what gemmaq makes of {source.location}: {_differs(tensor)}")
    heads = (_unlike(folder / file.name, file) for file in artifact.files)
    others = [problem for problem in heads if problem]
    notes = [_calibrated(known, unknown)] if unknown else []
    if known.version == __version__:
        return Comparison(tuple(compared), (*problems, *others), tuple(notes))
    notes += (f"{other} (it is of gemmaq {known.version}, this is {__version__})" for other in others)
    return Comparison(tuple(compared), tuple(problems), tuple(notes))


def _calibrated(known: Provenance, count: int) -> str:
    """What is to be said of codes that cannot be derived again."""
    basis = known.request.calibration
    names = ", ".join(basis.texts) if basis and basis.texts else "an importance matrix"
    flag = "--text" if basis and basis.texts else "--imatrix"
    return f"the codes of {count} tensors were calibrated on {names}: give it with {flag} to derive them again"


def _differs(tensor: Compared) -> str:
    codes = "weights" if ENCODINGS[tensor.encoding].is_float else "codes"
    if tensor.differing:
        return f"{tensor.differing:,} of {tensor.elements:,} {codes} differ"
    return "its codes are right, its scales are not"


def without_recipe(model: Checkpoint, source: Checkpoint, *, threads: int, progress: ProgressCallback) -> Comparison:
    """Compare the weights of a model that nothing is known of with those of a source; see `with_recipe`."""
    pairs, problems = [], []
    mine = {**model.tensors, **model.vision}
    theirs = {**source.tensors, **source.vision}
    for name, tensor in mine.items():
        if name not in theirs:
            problems.append(f"tensor {name} is not in {source.location}")
        elif tensor.shape != theirs[name].shape:
            shape = list(theirs[name].shape)
            problems.append(f"tensor {name} has the shape {list(tensor.shape)}, in {source.location} {shape}")
        else:
            pairs.append(Pair(name, theirs[name], tensor))
    problems += [f"tensor {name} of {source.location} is missing" for name in source.tensors if name not in mine]
    return Comparison(tuple(compare(pairs, threads=threads, progress=progress)), tuple(problems))


def _names(planned: PlannedTensor) -> list[str]:
    """What its arrays are called."""
    if len(planned.pieces) == 1:
        return [planned.name]
    return [planned.name.removesuffix("weight") + piece.suffix for piece in planned.pieces]


def _as_tensor(planned: PlannedTensor, layout: str, found: Sequence[StoredArray]) -> Tensor | None:
    """The tensor as it lies in the artifact, to give the source's weights; None if its arrays are others."""
    rows = planned.source.rows
    sizes = [rows * piece.row_bytes for piece in planned.pieces]
    dtypes = [piece.dtype for piece in planned.pieces]
    if [(array.dtype, array.nbytes) for array in found] != list(zip(dtypes, sizes, strict=True)):
        return None
    parts = tuple(
        Part(array.span, array.offset, piece.row_bytes, piece.dtype)
        for array, piece in zip(found, planned.pieces, strict=True)
    )
    layout = "plain" if len(parts) == 1 else layout
    shift = planned.source.shift - planned.shift
    return Tensor(
        planned.source.name, planned.source.shape, planned.encoding, parts, layout, shift, planned.channels_last
    )


def _unlike(path: Path, file: OutputFile) -> str | None:
    """What is wrong with a file beside its tensors: its size, or all that precedes them."""
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
