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
from gemmaq.cli.options import cores, opened
from gemmaq.cli.views.training import training
from gemmaq.errors import UsageError
from gemmaq.qat.settings import LEARNING_RATE, STEPS, VOCABULARY, Settings

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.inference.distributed import Ranks
    from gemmaq.qat.data import Data
    from gemmaq.qat.run import Order, Outcome

_EXITS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def qat(
    source: Annotated[str, typer.Argument(help="The model to train, which is also its own teacher: see convert.")],
    text: Annotated[
        list[Path],
        typer.Option("--text", metavar="FILE", help="Text to train on, again for more: plain, or chats as .jsonl."),
    ],
    held_out: Annotated[
        list[Path] | None,
        typer.Option("--held-out", metavar="FILE", help="Text to measure with. Default: the last 5 % of --text."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--start", metavar="SOURCE", help="Where the weights begin, if not at SOURCE: a GPTQ result."),
    ] = None,
    grid: Annotated[str, typer.Option("--grid", metavar="GRID", help="To train for: q4_0 or int4-channel.")] = "q4_0",
    activations: Annotated[
        str | None,
        typer.Option("--activations", metavar="TYPE", help="Round inputs of matrices too: int8, as llama.cpp does."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", min=1, help=f"Of the optimizer. Default: {STEPS}.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", metavar="M", min=0.01, help="All of it may take; sets --steps if that is not said."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Sequences at a time.")] = 2,
    accumulate: Annotated[int, typer.Option("--accumulate", metavar="N", min=1, help="Batches a step.")] = 1,
    context: Annotated[int, typer.Option("--context", metavar="N", min=8, help="Tokens a sequence.")] = 128,
    learning_rate: Annotated[float, typer.Option("--learning-rate", metavar="X", help="At most.")] = LEARNING_RATE,
    warm_up: Annotated[int, typer.Option("--warm-up", metavar="N", min=1, help="Steps until it is there.")] = 4,
    clip: Annotated[float, typer.Option("--clip", metavar="X", help="Norm that gradients are cut to.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of order, noise and samples.")] = 0,
    vocabulary: Annotated[
        int,
        typer.Option("--vocabulary", metavar="N", min=0, help="Most frequent tokens the loss is over; 0 for all."),
    ] = VOCABULARY,
    teacher_samples: Annotated[
        int,
        typer.Option(
            "--teacher-samples", metavar="N", min=0, help="Draw N of the teacher's tokens beforehand, to disk."
        ),
    ] = 0,
    train_embedding: Annotated[bool, typer.Option("--train-embedding", help="Train the embedding too.")] = False,
    train_norms: Annotated[bool, typer.Option("--train-norms", help="Train the norms too.")] = False,
    dtype: Annotated[str, typer.Option("--dtype", metavar="TYPE", help="Of the products: bf16 or f32.")] = "bf16",
    checkpoint_activations: Annotated[
        bool, typer.Option("--checkpoint-activations", help="Compute them twice instead of keeping them.")
    ] = False,
    no_dither: Annotated[bool, typer.Option("--no-dither", help="No noise for a quantized source.")] = False,
    block_wise: Annotated[
        bool, typer.Option("--block-wise", help="A layer at a time: for models larger than memory.")
    ] = False,
    save_steps: Annotated[
        int | None, typer.Option("--save-steps", metavar="N", min=1, help="Save the state every N steps.")
    ] = None,
    save_minutes: Annotated[
        float, typer.Option("--save-minutes", metavar="M", min=0.01, help="Or every M minutes.")
    ] = 10.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last state.")] = False,
    device: Annotated[str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, mps.")] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, envvar="GEMMAQ_THREADS", help="Of the CPU.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder to make. Default: ./MODEL-qat.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained and written.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the folder's path.")] = False,
) -> None:
    """Train weights to lie on an int4 grid, with the model itself as the teacher."""
    from gemmaq.inference.device import require_torch

    begun = time.monotonic()
    gc.enable()  # graphs of gradients are full of cycles
    require_torch("qat")
    settings = Settings(
        grid, _activations(activations), steps or STEPS, batch, accumulate, context, learning_rate, warm_up, clip, seed,
        vocabulary, teacher_samples, train_embedding, train_norms, _dtype(dtype), checkpoint_activations, not no_dither,
    )  # fmt: skip
    _check(settings)
    import torch

    from gemmaq.inference.distributed import ranks
    from gemmaq.inference.tokenize import load_encoder
    from gemmaq.models.identity import identify
    from gemmaq.qat import data as texts
    from gemmaq.qat.run import Order

    torch.set_num_threads(threads or cores())
    with ranks(device, batch) as here:
        hushed = quiet or as_json or not here.first
        checkpoint = opened(source, False, hushed)
        began = opened(start, False, hushed) if start else None
        folder = output or Path(f"{identify(checkpoint.name).stem}-qat")
        data = texts.load(text, held_out or [], load_encoder(checkpoint), context, batch, checkpoint.config.vocab_size)
        order = Order(
            checkpoint, began, settings, steps, minutes, folder, resume, force, save_steps, save_minutes,
            threads or cores(),
        )  # fmt: skip
        if dry_run:
            _foretell(order, data, block_wise, as_json, quiet)
            return
        outcome = _train(order, data, block_wise, here, hushed, begun)
    if here.first:
        _report(order, outcome, as_json, quiet)


def _activations(name: str | None) -> bool:
    if name not in (None, "int8"):
        raise UsageError(f"unknown type of activations {name!r}", "known: int8")
    return name is not None


def _dtype(name: str) -> str:
    if name not in ("bf16", "f32"):
        raise UsageError(f"unknown type of products {name!r}", "known: bf16, f32")
    return name


def _check(settings: Settings) -> None:
    from gemmaq.qat import grids

    grids.find(settings.grid)
    if not 0 < settings.learning_rate < 1:
        raise UsageError(f"--learning-rate {settings.learning_rate} is not between 0 and 1")
    if settings.clip <= 0:
        raise UsageError(f"--clip {settings.clip} is not above 0")


def _train(order: Order, data: Data, block_wise: bool, here: Ranks, hushed: bool, begun: float) -> Outcome:
    """Train under the eyes of the user, who may end it."""
    from gemmaq.qat import blockwise
    from gemmaq.qat import run as runs
    from gemmaq.qat.dither import on_lattice
    from gemmaq.qat.train import Stopped

    work = runs.prepare_work(order, here)
    here.wait()
    lattices = on_lattice(order.source) if order.settings.dither else {}
    if lattices:
        order = replace(order, source=_dithered(order, work, lattices, here, hushed))
    with _signals() as asked, training(hushed) as told:
        watcher = runs.Watcher((lambda text: None) if hushed else console.say, told, asked)
        try:
            train = blockwise.run if block_wise else runs.run
            return train(order, data, lattices, here, watcher, begun)
        except Stopped as stopped:
            if here.first:
                console.say(f"stopped, {work} holds what is done" if runs.has_state(work) else "stopped")
                console.say(f"go on with: {_command()}")
            raise typer.Exit(_EXITS.get(signal.Signals(stopped.number), 1)) from None
        finally:
            if here.first and work.exists() and not runs.has_state(work):
                runs.drop_work(work)


def _dithered(order: Order, work: Path, lattices: dict[str, str], here: Ranks, hushed: bool) -> Checkpoint:
    """The source with noise, written where the training's states are."""
    from collections import Counter

    from gemmaq.qat.dither import dithered
    from gemmaq.qat.export import spilled

    kinds = ", ".join(f"{count} {name}" for name, count in Counter(lattices.values()).most_common())
    if not hushed:
        console.warn(
            f"{len(lattices)} matrices were quantized before ({kinds}): training from a lattice explodes, so teacher "
            "and student get noise of its step; a checkpoint that never was quantized gives a better result"
        )
    path = work / f"dithered-{here.rank}.bf16"
    return spilled(order.source, dithered(order.source, order.settings.seed, lattices), path)


@contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """Ctrl-C and SIGTERM ask for an end after the step; a second one ends at once."""
    got: list[int] = []

    def note(number: int, frame: Any) -> None:
        if got:
            raise KeyboardInterrupt
        got.append(number)
        console.say("ending after this step; again to end at once")

    before = {number: signal.signal(number, note) for number in _EXITS}
    try:
        yield lambda: got[0] if got else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _command() -> str:
    """The command that goes on."""
    import shlex

    return shlex.join(["gemmaq", *(word for word in sys.argv[1:] if word not in ("--resume", "--force")), "--resume"])


def _foretell(order: Order, data: Data, block_wise: bool, as_json: bool, quiet: bool) -> None:
    from gemmaq.qat import forecast as plan

    found = plan.foretell(order, data, block_wise)
    if as_json:
        console.emit_json("qat", found)
    elif quiet:
        console.out(str(order.out))
    else:
        for line in plan.lines(found, console.size):
            console.out(line)
        console.say("nothing was trained or written (dry run)")


def _report(order: Order, outcome: Outcome, as_json: bool, quiet: bool) -> None:
    from gemmaq.qat import report as record

    before, after = outcome.before, outcome.after.document()
    if as_json:
        console.emit_json(
            "qat",
            {
                "path": str(order.out),
                "steps": outcome.state.step,
                "evaluation": {"before": before, "after": after},
            },
        )
        return
    console.out(str(order.out))
    if quiet:
        return
    console.say(f"{outcome.state.step} steps; on {before['tokens']:,.0f} tokens held out, teacher's perplexity "
                f"{before['teacher_perplexity']:.2f}:")  # fmt: skip
    for name, found in (("before", before), ("after", after)):
        console.say(f"  {name:<7}perplexity {found['perplexity']:.2f}, KL {found['kl']:.4f}, top-1 {found['top1']:.1%}")
    if not record.can_draw():
        console.say("no loss.svg: drawing needs matplotlib, pip install 'gemmaq[plot]'")
    console.say(f"next: gemmaq convert {order.out} --to gguf")
