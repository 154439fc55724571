"""From a source and texts to a folder with trained weights: what is read, trained, measured and written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import InputError, OutputError, UsageError
from gemmaq.inference.distributed import Ranks
from gemmaq.models.gemma3 import names
from gemmaq.qat import grids, model, train
from gemmaq.qat import state as checkpoints
from gemmaq.qat.data import Data
from gemmaq.qat.loss import Head, Measured, frequent
from gemmaq.qat.settings import Settings
from gemmaq.qat.state import State
from gemmaq.qat.train import Rules, Told, Trainer
from gemmaq.qat.warm_start import begun

if TYPE_CHECKING:
    from gemmaq.encodings import F32
    from gemmaq.inference.decoder import Decoder

_OURS = ("step-", "next.partial", "teacher-samples.", "layer-", "layers.json", "dithered-")
"""What names of files and folders begin with that training leaves in its work folder."""
UNSETTLED = 1 << 30
"""Steps of a training whose number the clock decides."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asked for.

    Attributes:
        source: teacher, and the student's beginning where `start` is None.
        start: the student's beginning.
        settings: of the training; `steps` holds where `minutes` is None.
        steps: asked for, None if the clock or an earlier run decides.
        minutes: all of it may take, None for any.
        out: folder to be made.
        resume: go on from the last state.
        force: replace an earlier result.
        every: steps between states, None for `save_minutes`.
        save_minutes: between states.
        threads: of the CPU.
    """

    source: Checkpoint
    start: Checkpoint | None
    settings: Settings
    steps: int | None
    minutes: float | None
    out: Path
    resume: bool = False
    force: bool = False
    every: int | None = None
    save_minutes: float = 10.0
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told, and who may ask for an end.

    Attributes:
        say: what is being done.
        told: after every step.
        asked: the number of the signal that asks for an end, 0 for none.
    """

    say: Callable[[str], None]
    told: Callable[[Told], None]
    asked: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        state: at the end.
        before: what the quantized model was worth.
        after: and is now.
        lattices: matrices that lay on one, by its name.
    """

    state: State
    before: dict[str, float]
    after: Measured
    lattices: dict[str, str]


def identity(order: Order, data: Data, lattices: dict[str, str]) -> dict[str, Any]:
    """What must be the same for a training to go on."""
    settings = asdict(order.settings)
    del settings["steps"]
    return {
        "settings": settings,
        "source": fingerprint(order.source),
        "start": fingerprint(order.start) if order.start else None,
        "text": data.digest,
        "held_out": data.held_out_digest,
        "dithered": len(lattices),
    }


def fingerprint(checkpoint: Checkpoint) -> str:
    """A digest of a checkpoint's dimensions and of a row of every tensor."""
    from hashlib import sha256

    from gemmaq.checkpoint.rows import weights
    from gemmaq.files.span import Reader

    digest = sha256(repr(checkpoint.config).encode())
    with Reader() as reader:
        for name, tensor in checkpoint.tensors.items():
            digest.update(name.encode())
            digest.update(weights(tensor, tensor.rows // 2, 1, reader).tobytes())
    return digest.hexdigest()


def prepare_work(order: Order, ranks: Ranks) -> Path:
    """The folder of the training's states, made or found.

    Raises:
        OutputError: there is one already, or none can be made.
    """
    from gemmaq.files.atomic import check_output

    check_output(order.out, 2 * order.source.parameters, order.source.files, order.force)
    work = checkpoints.work_folder(order.out)
    if not ranks.first:
        return work
    if work.exists() and not order.resume:
        if has_state(work) and not order.force:
            raise OutputError(
                f"{work} holds a training that has not ended", "--resume goes on with it, --force begins anew"
            )
        drop_work(work)
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{work} cannot be made: {error.strerror}") from error
    return work


def has_state(work: Path) -> bool:
    """Whether there is anything to go on from."""
    return any(True for kind in ("step-*", "layer-*.safetensors", "teacher-samples.*") for _ in work.glob(kind))


def drop_work(work: Path) -> None:
    """Remove what training left, and nothing else."""
    import shutil

    for path in work.iterdir():
        if not path.name.startswith(_OURS):
            raise OutputError(f"{work} holds {path.name}, which gemmaq did not write", "choose another -o")
    shutil.rmtree(work)


def run(order: Order, data: Data, lattices: dict[str, str], ranks: Ranks, watcher: Watcher, clock: float) -> Outcome:
    """Train, and write the folder.

    Args:
        order: what was asked for; its source lies on no lattice any more.
        data: sequences.
        lattices: that the source lay on.
        ranks: who takes part.
        watcher: see there.
        clock: when the command started, on the monotonic clock.

    Raises:
        InputError: teacher and student differ, the loss is no number, or something cannot be read.
        UsageError: the steps do not fit into the minutes, or the state belongs to another training.
        OutputError: something cannot be written.
        Stopped: somebody asked for an end.
    """
    import torch

    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import Device

    settings, work = order.settings, checkpoints.work_folder(order.out)
    grid = grids.find(settings.grid)
    model.check_start(order.source, order.start or order.source, grid)
    state, folder = _state(order, data, lattices, work)
    torch.manual_seed(settings.seed)
    if names.HEAD in order.source.tensors:
        raise InputError(f"{order.source.location} has a head of its own; only models without can be trained")
    with ExitStack() as stack:
        device = Device(ranks.device, None)
        source = stack.enter_context(decoder(order.source, device))
        start = stack.enter_context(decoder(order.start, device)) if order.start else source
        watcher.say(f"loading teacher and student on {ranks.device}")
        trainer = _trainer(source, start, settings, data, ranks)
    assert trainer.teacher is not None
    paused = time.monotonic()
    watcher.say(f"measuring on {data.held_out.size:,} tokens held out")
    reference = train.refer(trainer.teacher, ranks, data, settings.batch)
    if not state.before:
        found = train.measure(trainer.student, reference, ranks, data, settings.batch, trainer.head)
        state.before = found.document()
    reserve = time.monotonic() - paused
    if settings.samples:
        trainer = _with_samples(trainer, work, watcher)
    if folder is not None:
        trainer.restore(folder, state.step)
        watcher.say(f"going on from step {state.step}")
    deadline = None if order.minutes is None else clock + 60 * order.minutes
    rules = Rules(work, deadline, clock, reserve, order.every, 60 * order.save_minutes, order.steps is not None)
    train.run(trainer, state, rules, watcher.told, watcher.asked)
    watcher.say("measuring what was trained")
    after = train.measure(trainer.student, reference, ranks, data, settings.batch, trainer.head)
    outcome = Outcome(state, state.before, after, lattices)
    _write(order, trainer, data, outcome, ranks)
    ranks.wait()
    if ranks.first:
        drop_work(work)
    return outcome


def _state(order: Order, data: Data, lattices: dict[str, str], work: Path) -> tuple[State, Path | None]:
    """Where to begin, and the folder of the state to go on from.

    Raises:
        UsageError: that is of another training.
    """
    wanted = identity(order, data, lattices)
    folder = checkpoints.saved(work) if order.resume else None
    if folder is None:
        steps = order.steps or (UNSETTLED if order.minutes is not None else order.settings.steps)
        return State(wanted, steps), None
    state = checkpoints.load(folder)
    if state.identity != wanted:
        differ = sorted(
            key
            for key in {**wanted, **wanted["settings"]}
            if key != "settings"
            and wanted.get(key, wanted["settings"].get(key))
            != state.identity.get(key, state.identity.get("settings", {}).get(key))
        )
        raise UsageError(
            f"{folder} is of another training: {', '.join(differ)} differ",
            "say the same again, or begin anew with --force",
        )
    if order.steps is not None and order.steps != state.steps:
        if order.steps < state.step:
            raise UsageError(f"{state.step} steps are made already, --steps {order.steps} is less")
        state.changes.append([state.step, order.steps])
        state.steps = order.steps
    if state.steps >= UNSETTLED and order.minutes is None:
        state.steps = max(order.settings.steps, state.step)
    return state, folder


def _trainer(source: Decoder, start: Decoder, settings: Settings, data: Data, ranks: Ranks) -> Trainer:
    """Teacher and student in memory, the embedding once if nobody trains it."""
    import torch
    from torch import nn

    its, own = model.roles(settings)
    rows = model.embedding(source)
    teacher = model.network(source, its, rows).eval()
    trained: Any = rows
    if settings.embedding:
        trained = nn.Parameter(torch.from_numpy(start.read(start.checkpoint.tensors[names.EMBEDDING])).to(ranks.device))
    elif start is not source:
        trained = model.embedding(start)
    kept = None if start is source or settings.grid != "q4_0" else begun(source, start, settings.seed)
    student = model.network(start, own, trained, kept).train()
    ranks.shard(teacher)
    ranks.shard(student)
    config = source.checkpoint.config
    always = (config.bos_token_id, *config.eos_token_ids)
    wanted = frequent(data.train, settings.vocabulary, always, config.vocab_size)
    places = None if wanted is None else torch.from_numpy(wanted).to(ranks.device)
    # the student's own rows are the teacher's unless they are trained or come from elsewhere
    shared = places is not None and not settings.embedding and start is source
    head = Head(
        places,
        config.final_logit_softcapping,
        its.dtype,
        rows[places].to(its.dtype) if shared and places is not None else None,
        config.vocab_size,
    )
    return Trainer(settings, ranks, data, student, teacher, None, head, train.optimizer(student, settings, ranks))


def _with_samples(trainer: Trainer, work: Path, watcher: Watcher) -> Trainer:
    """The same without its teacher."""
    from gemmaq.qat import samples

    count = min(trainer.settings.samples, trainer.head.width)
    found = samples.opened(work, trainer.data, count, trainer.ranks.device)
    if found is None:
        if trainer.ranks.count > 1:
            raise UsageError(
                "samples of the teacher are drawn by one process",
                "begin without torchrun, then go on with --resume",
            )
        assert trainer.teacher is not None
        watcher.say(f"drawing {count} samples a token from the teacher")
        found = samples.draw(work, trainer.teacher, trainer, count)
    return replace(trainer, teacher=None, samples=found)


def _write(order: Order, trainer: Trainer, data: Data, outcome: Outcome, ranks: Ranks) -> None:
    """The folder; every process takes part in fetching, the first writes."""
    from gemmaq.qat import report as record
    from gemmaq.qat.export import write_folder

    weights = final(trainer)
    if not ranks.first:
        for _ in weights:
            pass
        return
    base = order.start or order.source
    base = replace(base, name=order.source.name, tensors={**base.tensors})
    beside = record.files(order, data, outcome)
    write_folder(base, weights, order.out, order.threads, order.force, lambda: beside)


def final(trainer: Trainer) -> Iterator[tuple[str, F32]]:
    """What is stored: matrices on their grid, everything else as it was trained."""
    from gemmaq.inference.distributed import whole

    grid = grids.find(trainer.settings.grid)
    kept = model.scales(trainer.student)
    for name, parameter in trainer.trained.items():
        latent = whole(parameter)
        if latent.ndim < 2 or name == names.EMBEDDING:
            yield name, latent.numpy()
            continue
        yield name, grids.stored(latent, grid, kept.get(name))
