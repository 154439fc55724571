"""A training from the opened checkpoints to the finished folder: load, train, measure, write."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from gemmaq.errors import InputError, UsageError
from gemmaq.files import sealed
from gemmaq.inference.distributed import ProcessGroup
from gemmaq.qat import grids, model, report, work
from gemmaq.qat import state as states
from gemmaq.qat.data import TokenDataset
from gemmaq.qat.job import Callbacks, Outcome, Session, TrainingJob, Weights, identity
from gemmaq.qat.settings import STEPS
from gemmaq.qat.state import State


def check(job: TrainingJob, processes: int) -> None:
    """Fail before any work on what would fail later.

    Raises:
        InputError: teacher or student cannot be trained.
        UsageError: block-wise training is asked to do what it cannot.
    """
    if job.source.towers_error is not None:
        raise job.source.towers_error  # before hours of training, whose result has the towers of the source
    model.check_models(job.source, job.start, job.settings)
    if job.block_wise and processes > 1:
        raise UsageError("--block-wise runs in a single process", "torchrun without --block-wise shares the model")
    if job.block_wise and (job.settings.embedding or job.settings.samples):
        option = "--train-embedding" if job.settings.embedding else "--teacher-samples"
        raise UsageError(f"--block-wise and {option} exclude each other", "leave one of them out")


def run(
    job: TrainingJob,
    data: TokenDataset,
    lattices: dict[str, str],
    *,
    group: ProcessGroup,
    callbacks: Callbacks,
    started: float,
) -> Outcome:
    """Train, and write the result; the work folder must exist.

    Args:
        job: what to train; its source has got its noise.
        data: token sequences.
        lattices: canonical names of the matrices that got noise -> lattice that they lay on.
        group: processes that take part.
        callbacks: functions to report to.
        started: time of the command's start on the monotonic clock, s.

    Raises:
        InputError: the loss is not finite, or a file cannot be read.
        UsageError: the steps do not fit into the time budget, or the saved state belongs to another training.
        OutputError: a file cannot be written.
        Stopped: a signal asked for the end.
    """
    import torch

    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import Device
    from gemmaq.qat import blockwise, warm_start, whole_model

    folder = work.folder_of(job.out)
    state, saved = _state(job, identity(job, data, lattices), folder, callbacks)
    torch.manual_seed(job.settings.seed)
    with ExitStack() as stack:
        device = Device(group.device, None)
        teacher = stack.enter_context(decoder(job.source, device))
        initial = stack.enter_context(decoder(job.start, device)) if job.start else teacher
        encoding = grids.find(job.settings.grid).encoding
        session = Session(
            job=job,
            data=data,
            group=group,
            callbacks=callbacks,
            started=started,
            work=folder,
            state=state,
            saved=saved,
            teacher=teacher,
            initial=initial,
            warm_start=warm_start.find(teacher, initial, encoding, job.settings.seed),
        )
        after, weights = (blockwise if job.block_wise else whole_model).train(session)
        outcome = Outcome(state, after, lattices)
        _write(job, weights, report.files(job, data, outcome) if group.main else {}, group)
    group.barrier()
    if group.main:
        work.remove(folder)
    return outcome


def _state(job: TrainingJob, wanted: dict[str, Any], folder: Path, callbacks: Callbacks) -> tuple[State, Path | None]:
    """The state to begin with, and the folder that it was saved in, None if training begins anew.

    Raises:
        InputError: all saved states are damaged, or what the last one goes on from is.
        UsageError: the saved state belongs to another training, or more steps are made than are asked for.
    """
    found = states.latest(folder) if job.resume else sealed.Last(None)
    for problem in found.passed:
        callbacks.say(f"{problem}; it is passed over")
    saved = found.folder
    if saved is None:
        return State(wanted, job.planned_steps), None
    state = states.load(saved)
    if state.identity != wanted:
        raise UsageError(
            f"belongs to another training: {', '.join(_differences(wanted, state.identity))} differ",
            "repeat the command with the same options, or begin anew with --force",
            path=saved,
        )
    if state.layer > (job.source.config.num_hidden_layers if job.block_wise else 0):
        raise InputError(f"is of layer {state.layer}, which the model has not", "begin anew with --force", path=saved)
    states.check_layers(folder, state)
    if job.steps is not None and job.steps != state.steps:
        if job.steps < state.step:
            raise UsageError(f"{state.step} steps are made already, --steps {job.steps} is less")
        state.set_steps(job.steps)
    if state.steps is None and job.minutes is None:
        state.steps = max(STEPS, state.step)
    return state, saved


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the settings and inputs in which two identities differ."""
    flat, others = ({**identity, **identity.get("settings", {})} for identity in (one, other))
    return sorted(key for key in {*flat, *others} - {"settings"} if flat.get(key) != others.get(key))


def _write(job: TrainingJob, weights: Weights, side_files: Mapping[str, bytes], group: ProcessGroup) -> None:
    """Write the folder; every process takes part in gathering the weights, the main one writes."""
    from gemmaq.qat.export import write_folder

    if not group.main:
        for _ in weights:
            pass
        return
    base = replace(job.initial, name=job.source.name)
    write_folder(base, weights, job.out, threads=job.threads, force=job.force, side_files=side_files)
