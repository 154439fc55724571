"""Memory of gemmaq's own tasks, for `gemmaq estimate-vram --task`: calibration by method gptq, and training.

The figures are those that `convert --method gptq` and `qat --dry-run` state, by the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console, estimated
from gemmaq.cli.console import Output
from gemmaq.errors import GemmaqError, UsageError, unknown

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint

RUN, GPTQ, QAT = TASKS = ("run", "gptq", "qat")
_LEAST_CONTEXT = 8


def check(task: str, given: Mapping[str, object]) -> None:
    """Refuse a task that is unknown, and options that it has no use for.

    Args:
        task: what was asked for, another one than `run`.
        given: flag -> value of an option; one that is false was not given.

    Raises:
        UsageError: it is refused.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    others = [flag for flag, value in given.items() if value]
    if others:
        raise UsageError(
            f"{others[0]} is for running a model: --task {task} counts main memory, with a CPU that computes",
            "leave it out",
        )


def emit(
    task: str,
    names: Sequence[str],
    output: Output,
    *,
    tokens: int | None,
    context: int | None,
    every: bool,
    weights: str | None = None,
) -> None:
    """Print what a task takes for every model.

    Args:
        task: `gptq` or `qat`.
        names: models.
        output: where to.
        tokens: tokens of text to calibrate on, None for the default.
        context: tokens per sequence of training, None for the default.
        every: leave out models that cannot be trained.
        weights: weight file that the user chose of the model, None for no choice.

    Raises:
        UsageError: a model cannot be trained.
        InputError: a model cannot be trained.
    """
    entries = []
    for name in names:
        checkpoint = estimated.open_model(name, weights=weights)
        estimated.require_target(checkpoint)
        try:
            entries.append(_gptq(checkpoint, tokens) if task == GPTQ else _qat(checkpoint, context))
        except GemmaqError as error:
            if not every:
                raise
            console.warn(f"{checkpoint.name} is left out: {error.message}")
    output.emit(
        lambda: {"estimates": entries},
        essential=lambda: [str(entry["bytes"]["total"]) for entry in entries],
        show=lambda: _show_gptq(entries) if task == GPTQ else _show_qat(entries),
    )


def _gptq(checkpoint: Checkpoint, tokens: int | None) -> dict[str, Any]:
    """What calibration takes; the figure of `convert` is without the program."""
    from gemmaq.calibration import PROGRAM, memory
    from gemmaq.planning.request import Calibration

    tokens = tokens or Calibration((), "").tokens
    needed = memory(checkpoint.config, tokens)
    return {
        "model": checkpoint.name,
        "task": GPTQ,
        "calibration_tokens": tokens,
        "memory_bytes": needed,
        "bytes": {"calibration": needed, "program": PROGRAM, "total": needed + PROGRAM},
    }


def _qat(checkpoint: Checkpoint, context: int | None) -> dict[str, Any]:
    """What training takes, of a whole model and layer by layer, with the other settings of `qat` as they are."""
    from gemmaq.qat import blockwise, forecast
    from gemmaq.qat.model import check_models
    from gemmaq.qat.settings import Settings

    settings = Settings() if context is None else Settings(context=context)
    longest = checkpoint.config.max_position_embeddings
    if not _LEAST_CONTEXT <= settings.context <= longest:
        raise UsageError(
            f"{checkpoint.name} is not trained on sequences of {settings.context} tokens",
            f"choose {_LEAST_CONTEXT} to {longest} tokens",
        )
    check_models(checkpoint, None, settings)
    whole = forecast.memory(checkpoint, settings)
    return {
        "model": checkpoint.name,
        "task": QAT,
        "context": settings.context,
        "batch": settings.batch,
        "memory_bytes": whole,
        "block_wise_memory_bytes": blockwise.memory(checkpoint, settings),
        "bytes": {"total": whole},
    }


def _show_gptq(entries: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        [entry["model"], *(console.size(entry["bytes"][part]) for part in ("calibration", "program", "total"))]
        for entry in entries
    ]
    title = f"Main memory of convert --method gptq, {entries[0]['calibration_tokens']:,} tokens" if entries else None
    console.table(title, ("", "calibration", "program", "total"), rows)
    console.say("The same for every type, and for several at once. Program: Python, torch, transformers.")


def _show_qat(entries: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        [entry["model"], console.size(entry["memory_bytes"]), console.size(entry["block_wise_memory_bytes"])]
        for entry in entries
    ]
    batch = f"{entries[0]['batch']} sequences of {entries[0]['context']:,} tokens" if entries else ""
    console.table(f"Main memory of qat, {batch} a step", ("", "whole model", "--block-wise"), rows)
    console.say("Layer by layer: at most, with 128 sequences to train on and 16 held out.")
