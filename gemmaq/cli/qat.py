"""`gemmaq qat`."""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import console
from gemmaq.cli.console import Output
from gemmaq.cli.options import (
    Device,
    Json,
    Threads,
    WeightFile,
    check_new,
    cores,
    count,
    new_folder,
    number,
    opened,
    quiet_option,
)
from gemmaq.cli.views import training as views
from gemmaq.errors import UsageError, unknown
from gemmaq.qat.settings import LEARNING_RATE, STEPS, VOCABULARY, Settings

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.inference.distributed import ProcessGroup
    from gemmaq.qat.data import TokenDataset
    from gemmaq.qat.job import Outcome, TrainingJob

_EXITS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}
"""Signals that stop a training after the current step -> exit code."""


def qat(
    *,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Model to train, also the teacher: anything that convert reads.")
    ],
    text: Annotated[
        list[Path],
        typer.Option("--text", metavar="FILE", help="Text to train on, plain or chats as .jsonl; can be repeated."),
    ],
    held_out: Annotated[
        list[Path] | None,
        typer.Option(
            "--held-out", metavar="FILE", help="Text to measure with; can be repeated. Default: the last 5 % of --text."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start", metavar="SOURCE", help="Initial weights, if not those of SOURCE: for example a GPTQ artifact."
        ),
    ] = None,
    grid: Annotated[
        str, typer.Option("--grid", metavar="GRID", help="Grid to train for: q4_0 or int4-channel.")
    ] = "q4_0",
    activations: Annotated[
        str | None,
        typer.Option(
            "--activations", metavar="TYPE", help="Round the inputs of matrices too: int8, as llama.cpp does."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            metavar="N",
            parser=count(1),
            help=f"Optimizer steps, per layer with --block-wise. Default: {STEPS}.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            metavar="M",
            parser=number(),
            help="Time budget of the whole command; decides on the steps unless --steps does.",
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", parser=count(1), help="Sequences per forward pass.")
    ] = 2,
    accumulate: Annotated[
        int, typer.Option("--accumulate", metavar="N", parser=count(1), help="Batches per optimizer step.")
    ] = 1,
    context: Annotated[int, typer.Option("--context", metavar="N", parser=count(8), help="Tokens per sequence.")] = 128,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", metavar="X", parser=number(), help="Peak learning rate.")
    ] = LEARNING_RATE,
    warm_up: Annotated[
        int,
        typer.Option("--warm-up", metavar="N", parser=count(1), help="Steps until the learning rate reaches its peak."),
    ] = 4,
    clip: Annotated[
        float, typer.Option("--clip", metavar="X", parser=number(), help="Norm that gradients are clipped to.")
    ] = 1.0,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", parser=count(0), help="Seed of data order, noise and samples.")
    ] = 0,
    vocabulary: Annotated[
        int,
        typer.Option(
            "--vocabulary",
            metavar="N",
            parser=count(0),
            help="Compute the loss over the N most frequent tokens; 0 for all.",
        ),
    ] = VOCABULARY,
    teacher_samples: Annotated[
        int,
        typer.Option(
            "--teacher-samples",
            metavar="N",
            parser=count(0),
            help="Sample N teacher tokens per position to disk, then train without the teacher.",
        ),
    ] = 0,
    train_embedding: Annotated[bool, typer.Option("--train-embedding", help="Train the embedding too.")] = False,
    train_norms: Annotated[bool, typer.Option("--train-norms", help="Train the norms too.")] = False,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="TYPE", help="Type of matrix products: bf16 or f32.")
    ] = "bf16",
    checkpoint_activations: Annotated[
        bool,
        typer.Option(
            "--checkpoint-activations", help="Recompute activations instead of keeping them: less memory, more time."
        ),
    ] = False,
    no_dither: Annotated[
        bool, typer.Option("--no-dither", help="Add no noise to a source that was quantized before.")
    ] = False,
    block_wise: Annotated[
        bool, typer.Option("--block-wise", help="Train one layer at a time: for models larger than memory.")
    ] = False,
    save_steps: Annotated[
        int | None,
        typer.Option("--save-steps", metavar="N", parser=count(1), help="Save the state every N steps, not by time."),
    ] = None,
    save_minutes: Annotated[
        float, typer.Option("--save-minutes", metavar="M", parser=number(), help="Save the state every M minutes.")
    ] = 10.0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last saved state.")] = False,
    weights: WeightFile = None,
    device: Device = None,
    threads: Threads = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", parser=new_folder, help="Folder to write. Default: ./MODEL-qat."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be trained and written, in what time and memory."),
    ] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the folder's path")] = False,
) -> None:
    """Train a model for int4 (QAT), with itself as the teacher."""
    from gemmaq.inference.device import require_torch

    started = time.monotonic()
    gc.enable()  # graphs of gradients are full of cycles
    console.waiting.doing("loading torch")
    require_torch("qat")
    settings = Settings(
        grid=grid,
        activations=_activations(activations),
        batch=batch,
        accumulate=accumulate,
        context=context,
        learning_rate=learning_rate,
        warm_up=warm_up,
        clip=clip,
        seed=seed,
        vocabulary=vocabulary,
        samples=teacher_samples,
        embedding=train_embedding,
        norms=train_norms,
        dtype=_dtype(dtype),
        recompute=checkpoint_activations,
        dither=not no_dither,
    )
    _check(settings, steps)
    check_new(output, force)
    import torch

    from gemmaq.inference.distributed import process_group
    from gemmaq.models.identity import identify
    from gemmaq.qat import forecast, run, work
    from gemmaq.qat.job import TrainingJob

    torch.set_num_threads(threads or cores())
    with process_group(device, batch) as group:
        shown = Output("qat", as_json, quiet, group.main)
        checkpoint = opened(source, False, shown.silent, weights=weights)
        job = TrainingJob(
            source=checkpoint,
            start=opened(start, False, shown.silent) if start else None,
            settings=settings,
            out=output or Path(f"{identify(checkpoint.name).stem}-qat"),
            steps=steps,
            minutes=minutes,
            block_wise=block_wise,
            resume=resume,
            force=force,
            save_steps=save_steps,
            save_minutes=save_minutes,
            threads=threads or cores(),
        )
        run.check(job, group.size)
        console.waiting.doing("reading the text")
        data = _dataset(job, text, held_out or [])
        if dry_run:
            work.check_output(job)
            console.waiting.doing("timing a layer")
            views.forecast(job, forecast.forecast(job, data, group, started), shown)
            return
        outcome = _train(job, data, group, shown, started)
    if group.main:
        views.report(job, outcome, shown)


def _activations(name: str | None) -> bool:
    if name not in (None, "int8"):
        raise unknown("type of activations", name, ("int8",))
    return name is not None


def _dtype(name: str) -> str:
    if name not in ("bf16", "f32"):
        raise unknown("type of matrix products", name, ("bf16", "f32"))
    return name


def _check(settings: Settings, steps: int | None) -> None:
    from gemmaq.qat import grids
    from gemmaq.qat.state import MOST_STEPS

    grids.find(settings.grid)
    if not 0 < settings.learning_rate < 1:
        raise UsageError(f"--learning-rate {settings.learning_rate} is not between 0 and 1")
    if (steps or 0) > MOST_STEPS:
        raise UsageError(f"--steps {steps} is more than {MOST_STEPS:,}")
    if settings.clip <= 0:
        raise UsageError(f"--clip {settings.clip} is not above 0")


def _dataset(job: TrainingJob, text: list[Path], held_out: list[Path]) -> TokenDataset:
    from gemmaq.inference.tokenize import load_encoder
    from gemmaq.qat.data import load

    settings, vocabulary = job.settings, job.source.config.vocab_size
    tokenizer = load_encoder(job.source)
    return load(text, held_out, tokenizer, length=settings.context, batch=settings.batch, vocabulary=vocabulary)


def _train(job: TrainingJob, data: TokenDataset, group: ProcessGroup, shown: Output, started: float) -> Outcome:
    """Train until the end or a signal; a stopped training prints the command that continues it."""
    from gemmaq.qat import run
    from gemmaq.qat import work as work_folder
    from gemmaq.qat.dither import on_lattice
    from gemmaq.qat.job import Callbacks
    from gemmaq.qat.trainer import Stopped

    work = work_folder.prepare(job, group)
    try:
        with console.progress(None, shown.silent) as progress, _signals() as stop_signal:
            say = shown.say
            lattices: dict[str, str] = {}
            if job.settings.dither:
                say("looking for an earlier quantization of the weights")
                lattices = on_lattice(job.source)
            if lattices:
                source = _dithered(job, work / f"dithered-{group.rank}.bf16", lattices, shown)
                job = replace(job, source=source)
            callbacks = Callbacks(say, progress, lambda metrics: progress(views.step(metrics)), stop_signal)
            return run.run(job, data, lattices, group=group, callbacks=callbacks, started=started)
    except Stopped as stopped:
        if group.main:
            console.say(f"stopped; {work} holds the saved state" if work_folder.has_state(work) else "stopped")
            console.say(f"continue with: {_command()}")
        raise typer.Exit(_EXITS.get(signal.Signals(stopped.number), 1)) from None
    finally:
        if group.main and work.exists() and not work_folder.has_state(work):
            work_folder.remove(work)


def _dithered(job: TrainingJob, path: Path, lattices: dict[str, str], shown: Output) -> Checkpoint:
    """The source with noise, its weights in the given file; warns of it."""
    from gemmaq.qat.dither import dithered
    from gemmaq.qat.export import spilled

    if not shown.silent:
        _warn_of_noise(lattices)
    return spilled(job.source, dithered(job.source, job.settings.seed, lattices), path)


def _warn_of_noise(lattices: dict[str, str]) -> None:
    from collections import Counter

    kinds = ", ".join(f"{count} {name}" for name, count in Counter(lattices.values()).most_common())
    console.warn(
        f"{len(lattices)} matrices were quantized before ({kinds}); noise is added to them so that training stays "
        "stable. A checkpoint that was never quantized gives a better result"
    )


@contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """Let Ctrl-C, SIGTERM and SIGHUP ask for a stop after the current step; a second signal ends at once."""
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        console.say("stopping after this step; press again to stop at once")

    numbers = [number for number in _EXITS if signal.getsignal(number) != signal.SIG_IGN]  # as nohup has it
    handlers = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _command() -> str:
    """The command line that resumes this training."""
    import shlex

    return shlex.join(["gemmaq", *(word for word in sys.argv[1:] if word not in ("--resume", "--force")), "--resume"])
