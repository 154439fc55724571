"""Compare an artifact with its source: every byte is made again, and the errors of the weights are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gemmaq import __version__
from gemmaq.artifact import provenance
from gemmaq.artifact.outcomes import OutcomeCounter
from gemmaq.artifact.provenance import Provenance
from gemmaq.calibration.complete import Basis, settled
from gemmaq.checkpoint import Checkpoint, Part, Tensor
from gemmaq.containers.layout import OutputFile, StoredArray
from gemmaq.convert.compare import Compared, Pair, compare
from gemmaq.convert.hashing import BackgroundHasher, SourceDigests
from gemmaq.convert.layout import Artifact, lay_out, make_plans
from gemmaq.convert.run import Conversion, Options, artifacts
from gemmaq.convert.side_files import settings
from gemmaq.convert.source_digests import Pending
from gemmaq.encodings import ENCODINGS
from gemmaq.files.runs import Run
from gemmaq.models.slices import Slice
from gemmaq.planning.drafter import divided, prefixed
from gemmaq.planning.plan import PlannedTensor
from gemmaq.planning.request import Request
from gemmaq.planning.survey import fits_for
from gemmaq.progress import ProgressCallback
from gemmaq.verify import beside
from gemmaq.verify.outside import difference

ALIKE = 0.1
"""Share of what tuning changed by which norms that were tuned on another processor may differ."""
_NO_DRAFTER = "the drafter beside the model is not checked: name its source with --draft SOURCE"


@dataclass(frozen=True, slots=True)
class _Job:
    """What is compared, see `with_recipe`; `read` is that of `beside.Made`."""

    folder: Path
    record: Provenance
    stored: Mapping[str, StoredArray]
    source: Checkpoint
    read: Sequence[Tensor]
    hasher: BackgroundHasher
    options: Options
    own_card: bool


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
    stored: Mapping[str, StoredArray],
    source: Checkpoint,
    *,
    options: Options,
    progress: ProgressCallback,
    basis: Basis | None = None,
    own_card: bool = False,
) -> Comparison:
    """Convert the source again with the recorded recipe, a slab at a time in memory, and compare.

    Args:
        folder: folder of the artifact.
        record: content of its gemmaq.json.
        stored: arrays in its files by name.
        source: checkpoint that it was made of.
        options: threads and device.
        progress: called after every slab and every layer.
        basis: text or importance matrix that codes were calibrated on; None to leave such codes unchecked.
        own_card: the user wrote or changed the model card, so that it is not compared.

    A drafter beside the model is left unchecked if the source comes without one.

    Raises:
        InputError: the source is unusable, or cannot be made into such an artifact.
    """
    request, drafter = record.request, source.drafter
    if record.drafter is not None and drafter is not None:
        drafter = replace(drafter, name=record.drafter)
    request = replace(request, draft=request.draft and drafter is not None)
    source = replace(source, name=record.name, drafter=drafter)
    if basis is not None:
        matrix = request.calibration.matrix if request.calibration is not None else None
        kept = matrix is not None and matrix.size > 0
        basis = settled(
            basis, source, methods=request.recipe.methods, file=matrix.file if matrix is not None else None, keep=kept
        )
        request = replace(request, calibration=basis.calibration)
    only = None if _shares_norms(request, basis) else [record.container]
    with BackgroundHasher(_digests(record)) as hasher:
        Pending.start(hasher, source, (), [*source.tensors.values()])
        everything = make_plans(source, request, fits_for(source, [request]))
        plans = [plan for plan in everything if only is None or plan.format in only]
        read = [planned.source for plan in everything for planned in plan.own]
        job = _Job(folder, record, stored, source, read, hasher, options, own_card)
        if basis is None:
            (artifact,) = lay_out(source, plans, folder)
            return _compare(job, artifact, progress)
        with artifacts(Conversion(source, (request,), folder, basis), plans, options, progress) as made:
            artifact = next(each for each in made if each.container.FORMAT.name == record.container)
            found = _compare(job, artifact, progress)
    if basis.imatrix is None or not basis.calibration.texts:
        return found
    taken = f"the importance matrix {_matrix_name(basis)} was taken as it is: its text is checked with --text"
    return replace(found, notes=(*found.notes, taken))


def _shares_norms(request: Request, basis: Basis | None) -> bool:
    """Whether norms are tuned: they are for the first of the containers, and the same in all."""
    return basis is not None and request.calibration is not None and request.calibration.refine is not None


def _matrix_name(basis: Basis) -> str:
    return basis.calibration.matrix.file if basis.calibration.matrix is not None else ""


def _compare(job: _Job, artifact: Artifact, progress: ProgressCallback) -> Comparison:
    """Compare a model in a folder with what gemmaq makes of the source."""
    folder, record, source, (plan,) = job.folder, job.record, job.source, artifact.plans
    stored, target = dict(job.stored), artifact.container.FORMAT
    pairs, problems, unchecked, outcomes = [], [], set[str](), OutcomeCounter()
    constants = {array.name: stored.pop(array.name, None) for array in plan.constants}
    for planned in plan.everything:
        parts = [stored.pop(name, None) for name in planned.array_names]
        for part in planned.held:
            for constant in target.constants(part.name, part.shape, planned.encoding, planned.divisor):
                constants[constant.name] = stored.pop(constant.name, None)
        tensor = _as_tensor(planned, target.layout, [part for part in parts if part is not None])
        if tensor is None:
            problems.append(f"tensor {planned.name} is not there as {planned.encoding.label} {list(planned.shape)}")
        elif not planned.is_complete:
            pairs.append(Pair(planned.name, planned.source, tensor))
            unchecked.add(planned.name)
        else:
            count = partial(outcomes.count, plan.key, planned)
            pairs.append(Pair(planned.name, planned.source, tensor, planned, artifact.container, count))
    notes = [_unchecked(record, len(unchecked))] if unchecked else []
    if record.drafter is not None and plan.drafter is None:
        notes.append(_NO_DRAFTER)
        stored = divided(stored)[0]
    problems += [f"tensor {name} is not made of {source.location}" for name in stored]
    pending = Pending.start(job.hasher, source, [plan], job.read)
    compared = compare(pairs, threads=job.options.threads, progress=progress)
    digested = pending.result()
    near = [tensor for tensor in compared if tensor.equal is False and (tensor.apart or 1.0) <= ALIKE]
    if near:
        worst = max(tensor.apart or 0.0 for tensor in near)
        notes.append(
            f"the norms of {len(near)} tensors were tuned again, and differ from those stored by up to {worst:.1%} of "
            "what tuning changed, as on another kind of processor; all other bytes were compared"
        )
    for tensors in compared:
        if tensors.equal is False and tensors not in near:
            problems.append(
                f"tensor {tensors.name} is not what gemmaq makes of {source.location}: {_difference(tensors)}"
            )
    found = {name: array for name, array in constants.items() if array is not None}
    records = provenance.read(folder)
    is_first = record.label == next(iter(records), record).label  # Ollama's settings name that model
    side = settings(source, record.container, [file.path for file in record.files]) if is_first else {}
    files = (*artifact.files, *(OutputFile(name, len(content), content) for name, content in side.items()))
    others = [text for file in files if (text := difference(folder / file.name, file, found))]
    unsure = unchecked | {tensor.name for tensor in near}
    made = beside.Made(folder, record, plan, source, job.read, outcomes, unsure)
    entry, names = beside.derived(made, digested), {file.name for file in files}
    origins, told = beside.sources(made, entry), [beside.entry(made, entry)]
    if is_first:
        told.append(beside.described(made, records or (record,), names, own_card=job.own_card))
        notes += beside.others(folder, records, names)
    problems += origins.problems
    others += [text for each in told for text in each.problems]
    notes += [text for each in (origins, *told) for text in each.notes]
    if record.version == __version__:
        return Comparison(tuple(compared), (*problems, *others), tuple(notes))
    notes += (f"{other} (written by gemmaq {record.version}, this is {__version__})" for other in others)
    return Comparison(tuple(compared), tuple(problems), tuple(notes))


def _digests(record: Provenance) -> SourceDigests:
    """What of the source is hashed: nothing if there is no digest on record to compare with."""
    sources = [record.entry.get(key) for key in beside.SOURCES]
    listed = [source.get("files") for source in sources if isinstance(source, dict)]
    files = [file for each in listed if isinstance(each, list) for file in each if isinstance(file, dict)]
    is_undigested = files and all(file.get("sha256") is None for file in files)
    return SourceDigests.NONE if is_undigested else SourceDigests.READ


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
    pairs, problems, notes = [], [], []
    tensors, originals = {**model.tensors, **model.towers}, {**source.tensors, **source.towers}
    expected = {*source.tensors, *(source.towers if model.towers else ())}
    if model.drafter is not None and source.drafter is not None:
        tensors |= prefixed(model.drafter.tensors)
        originals |= prefixed(source.drafter.tensors)
        expected |= {*prefixed(source.drafter.tensors)}
    elif model.drafter is not None:
        notes.append(_NO_DRAFTER)
    if source.towers and not model.towers:
        notes.append(f"it has no towers for images and sound, {source.location} has: the text model was compared")
    for name, tensor in tensors.items():
        original = originals.get(name)
        if original is None:
            problems.append(f"tensor {name} is not in {source.location}")
        elif tensor.shape != original.shape:
            shape = list(original.shape)
            problems.append(f"tensor {name} has the shape {list(tensor.shape)}, in {source.location} {shape}")
        else:
            pairs.append(Pair(name, original, tensor))
    missing = [name for name in originals if name in expected and name not in tensors]
    problems += [f"tensor {name} of {source.location} is missing" for name in missing]
    return Comparison(tuple(compare(pairs, threads=threads, progress=progress)), tuple(problems), tuple(notes))


def _as_tensor(planned: PlannedTensor, layout: str, arrays: Sequence[StoredArray]) -> Tensor | None:
    """A tensor of the artifact that reads as the source's weights; None if its arrays are not as planned."""
    wanted = [(planned.pieces[array.piece], array.part) for array in planned.arrays]
    sizes = [(piece.dtype, part.rows * piece.row_bytes) for piece, part in wanted]
    if [(array.dtype, array.nbytes) for array in arrays] != sizes:
        return None
    parts = tuple(
        _part(planned, number, [(array, part) for array, (at, part) in zip(arrays, wanted, strict=True) if at is piece])
        for number, piece in enumerate(planned.pieces)
    )
    layout = "plain" if len(parts) == 1 else layout
    shift = planned.source.shift - planned.shift
    return Tensor(
        planned.source.name,
        planned.source.shape,
        planned.encoding,
        parts,
        layout,
        shift,
        planned.arrangement,
        divisor=planned.divisor,
    )


def _part(planned: PlannedTensor, number: int, arrays: Sequence[tuple[StoredArray, Slice]]) -> Part:
    """One of the tensor's pieces, whose rows lie in an array for each slice."""
    piece = planned.pieces[number]
    runs = []
    for array, held in arrays:
        offset = array.offset
        for first, count in held.runs:
            runs.append(Run(first, count, offset, array.span))
            offset += count * piece.row_bytes
    runs.sort(key=lambda run: run.first)
    first_array = arrays[0][0]
    return Part(first_array.span, first_array.offset, piece.row_bytes, piece.dtype, tuple(runs) if runs[1:] else ())
