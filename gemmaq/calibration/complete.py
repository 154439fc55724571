"""Complete plans with what calibrated methods need, ahead of writing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration import imatrix as files
from gemmaq.calibration.imatrix import Imatrix
from gemmaq.calibration.store import Store
from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.convert.jobs import Job
from gemmaq.errors import InputError, OutputError, UsageError
from gemmaq.inference.documents import Text
from gemmaq.methods import Importance, calibrated
from gemmaq.planning.plan import PlannedTensor
from gemmaq.planning.request import Calibration

if TYPE_CHECKING:
    from gemmaq.inference.device import Progress
    from gemmaq.inference.documents import Tokens


@dataclass(frozen=True, slots=True)
class Material:
    """What to calibrate with, and on what.

    Attributes:
        text: documents, None if an importance matrix is enough.
        imatrix: an importance matrix that was given, or None.
        device: to compute on, None for the best there is.
        threads: workers.
    """

    text: Text | None
    imatrix: Imatrix | None
    device: str | None
    threads: int


def needed(jobs: Sequence[Job]) -> tuple[str, ...]:
    """The calibrated methods that plans ask for."""
    return tuple(name for name in calibrated() if any(p.choice.method == name for j in jobs for p in j.plan.tensors))


def _together(jobs: Sequence[Job]) -> dict[str, PlannedTensor]:
    """Canonical name -> what is to become of a matrix, in all containers.

    Raises:
        InputError: it is not the same in all.
    """
    planned: dict[str, PlannedTensor] = {}
    for job in jobs:
        for tensor in job.plan.tensors:
            if not tensor.source.place.role.is_quantizable:
                continue
            first = planned.setdefault(tensor.source.name, tensor)
            if tensor.choice.method == "gptq" and tensor.encoding != first.encoding:
                raise InputError(
                    f"{tensor.source.name} would be {first.encoding.label} in one container and "
                    f"{tensor.encoding.label} in another, which cannot be calibrated together",
                    "convert for one container at a time, or choose a --quant that all hold",
                )
    return planned


@contextmanager
def prepared(
    checkpoint: Checkpoint,
    jobs: Sequence[Job],
    calibration: Calibration | None,
    material: Material,
    folder: Path,
    progress: Progress,
) -> Iterator[list[Job]]:
    """Jobs whose plans say all that writing needs; what they point to is there until the end.

    Args:
        checkpoint: the source.
        jobs: as planned.
        calibration: how; None only where no method asks for it.
        material: with what.
        folder: beside which codes are kept meanwhile.
        progress: told what is done.

    Raises:
        UsageError: torch or transformers is missing.
        InputError: text or matrix do not fit the model.
        OutputError: there is no room beside the folder.
    """
    asked = needed(jobs)
    if not asked or calibration is None:
        yield list(jobs)
        return
    if "importance" in asked:
        weigh = _weights(checkpoint, jobs, calibration, material, progress)
        jobs = [_changed(job, "importance", weigh) for job in jobs]
    if "gptq" not in asked:
        yield list(jobs)
        return
    if material.text is None:
        raise UsageError("method gptq needs text to calibrate on", "an importance matrix is not enough: --text FILE")
    planned = _together(jobs)
    parent = next(p for p in folder.absolute().parents if p.exists())
    with ExitStack() as kept:
        try:
            beside = tempfile.TemporaryDirectory(prefix=f"{folder.name}.", suffix=".partial", dir=parent)
            store = Store(Path(kept.enter_context(beside)))
            solved = _solve(checkpoint, planned, calibration, material, store, progress)
        except OSError as error:
            raise OutputError(f"what is calibrated cannot be kept in {parent}: {error.strerror}") from error
        yield [_changed(job, "gptq", lambda p: replace(p, solved=solved[p.source.name])) for job in jobs]


def importance(
    checkpoint: Checkpoint, tokens: Tokens, names: tuple[str, ...], material: Material, progress: Progress
) -> Imatrix:
    """The importance matrix of a model on sequences of tokens, i64 [sequences, length].

    Args:
        checkpoint: the model.
        tokens: i64 [sequences, length].
        names: of the texts they come from.
        material: where to compute.
        progress: told layers done.
    """
    from gemmaq.calibration.statistics import squares
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import open_device

    with open_device(material.device, material.threads) as here, decoder(checkpoint, here) as model:
        sums = squares(model, tokens, progress)
    entries = {
        checkpoint.family.names.to_gguf(name): files.Entry(found.astype(np.float32), tokens.size)
        for name, found in sums.items()
    }
    return Imatrix(entries, names, *tokens.shape)


def sequences(checkpoint: Checkpoint, text: Text, calibration: Calibration) -> Tokens:
    """Tokens to calibrate on, i64 [sequences, length].

    Raises:
        InputError: the context is longer than the model's, or there is too little text.
    """
    from gemmaq.inference.tokenize import calibration as made
    from gemmaq.inference.tokenize import encoder

    most = checkpoint.config.max_position_embeddings
    if calibration.context > most:
        raise InputError(f"a context of {calibration.context} is longer than the model's {most}")
    return made(text, encoder(checkpoint), calibration.context, max(1, calibration.tokens // calibration.context))


def _weights(
    checkpoint: Checkpoint,
    jobs: Sequence[Job],
    calibration: Calibration,
    material: Material,
    progress: Progress,
) -> Callable[[PlannedTensor], PlannedTensor]:
    """What gives a planned tensor the importance of its columns."""
    found = material.imatrix
    if found is not None:
        files.check(found, checkpoint)
    elif material.text is not None:
        tokens = sequences(checkpoint, material.text, calibration)
        found = importance(checkpoint, tokens, material.text.names, material, progress)
    else:
        raise UsageError("method importance needs an importance matrix or text", "--imatrix FILE, or --text FILE")
    to_gguf = checkpoint.family.names.to_gguf
    known = {
        p.source.name: Importance(found.importance(to_gguf(p.source.name)))
        for job in jobs
        for p in job.plan.tensors
        if p.choice.method == "importance"
    }

    def weigh(planned: PlannedTensor) -> PlannedTensor:
        return replace(planned, choice=replace(planned.choice, importance=known[planned.source.name]))

    return weigh


def _changed(job: Job, method: str, change: Callable[[PlannedTensor], PlannedTensor]) -> Job:
    """A job with the tensors of a method changed, in the plan and in the files."""
    changed = {id(p): change(p) for p in job.plan.tensors if p.choice.method == method}
    tensors = tuple(changed.get(id(p), p) for p in job.plan.tensors)
    files = tuple(
        replace(f, placements=tuple(replace(at, tensor=changed.get(id(at.tensor), at.tensor)) for at in f.placements))
        for f in job.artifact.files
    )
    return Job(replace(job.plan, tensors=tensors), replace(job.artifact, files=files))


def _solve(
    checkpoint: Checkpoint,
    planned: Mapping[str, PlannedTensor],
    calibration: Calibration,
    material: Material,
    store: Store,
    progress: Progress,
) -> Mapping[str, Tensor]:
    """The codes of every matrix whose method is gptq."""
    from gemmaq.calibration.gptq import Settings
    from gemmaq.calibration.layerwise import solve
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import open_device

    assert material.text is not None
    tokens = sequences(checkpoint, material.text, calibration)
    settings = Settings(calibration.damping, calibration.order)
    with open_device(material.device, material.threads) as here, decoder(checkpoint, here) as model:
        return solve(model, tokens, planned, settings, store, progress)
