"""Refinement: norm weights are tuned to the codes that were chosen, for each type of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration.complete import Basis, sequences
from gemmaq.calibration.resources import Resources
from gemmaq.checkpoint import Checkpoint, Part, Tensor, spans_of
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError, OutputError, UsageError
from gemmaq.files.span import FileSpan, Reader
from gemmaq.files.workplace import folder_beside
from gemmaq.planning import written
from gemmaq.planning.plan import Plan
from gemmaq.planning.request import Refinement
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from gemmaq.calibration.refine_norms import Tuned
    from gemmaq.encodings import F32
    from gemmaq.inference.documents import Tokens

_HELD = 16
"""One sequence in so many is held out."""
_LEAST, _MOST = 1, 6
"""Sequences that are held out, at least and at most."""


def check(plans: Sequence[Plan], checkpoint: Checkpoint) -> None:
    """Refuse a refinement that could do nothing.

    Args:
        plans: plans of all types and containers.
        checkpoint: the source.

    Raises:
        UsageError: a refinement is asked for, and the model predicts nothing by itself, or nothing is quantized.
    """
    if all(_asked(plan) is None for plan in plans):
        return
    family = checkpoint.family
    if family.embeds or family.drafts:
        what = "predicts no tokens" if family.embeds else "runs beside its target alone"
        raise UsageError(
            f"--refine tunes a model to the predictions of its source, and an {family.title} {what}", "leave it out"
        )
    if not any(tensor.tuned for plan in plans for tensor in plan.tensors):
        labels = ", ".join(dict.fromkeys(plan.label for plan in plans))
        raise UsageError(
            f"--refine tunes norms to quantized matrices, and {labels} quantizes none", "leave it out, or --quant q4_0"
        )


def _asked(plan: Plan) -> Refinement | None:
    return plan.request.calibration.refine if plan.request.calibration is not None else None


@contextmanager
def refined(
    plans: Sequence[Plan],
    checkpoint: Checkpoint,
    basis: Basis | None,
    *,
    resources: Resources,
    near: Path,
    progress: ProgressCallback,
) -> Iterator[list[Plan]]:
    """Tune the norms of plans whose codes are complete; containers of a type share them.

    Args:
        plans: one for each container and type.
        checkpoint: the source.
        basis: the text; without one plans stay as they are, and their norms incomplete.
        resources: where to compute.
        near: path beside which norms are kept on disk until the context ends.
        progress: called after every step.

    Raises:
        UsageError: torch or transformers is missing, or there is not enough text or memory.
        InputError: the text does not fit the model, or the loss is not finite.
        OutputError: norms cannot be stored.
    """
    first = {plan.label: plan for plan in reversed(plans) if any(tensor.tuned for tensor in plan.tensors)}
    if not first or basis is None or basis.text is None:
        yield list(plans)
        return
    with ExitStack() as stack:
        made: dict[str, tuple[Refinement, dict[str, Tensor]]] = {}
        for label, plan in first.items():
            refinement, norms = _tuned(plan, checkpoint, basis, resources=resources, progress=progress)
            made[label] = refinement, {}
            if not norms:
                continue
            try:
                path = stack.enter_context(folder_beside(near)) / "norms.f32"
                made[label] = refinement, _stored(norms, checkpoint, path)
            except OSError as error:
                raise OutputError(
                    f"tuned norms cannot be kept in {near.absolute().parent}: {error.strerror}"
                ) from error
        yield [_completed(plan, *made[plan.label]) if plan.label in made else plan for plan in plans]


def _completed(plan: Plan, refinement: Refinement, norms: dict[str, Tensor]) -> Plan:
    """A plan with tuned norms, or with those of the source if there are none."""
    assert plan.request.calibration is not None
    tensors = (
        replace(tensor, tuned=tensor.source.name in norms, solved=norms.get(tensor.source.name))
        if tensor.tuned
        else tensor
        for tensor in plan.tensors
    )
    request = replace(plan.request, calibration=replace(plan.request.calibration, refine=refinement))
    warnings = plan.warnings
    if not norms:
        told = f"no norms predicted the held-out text better than those of the source, which stay ({refinement.steps}"
        warnings = (*warnings, f"{told} steps, KL divergence {refinement.before:.4f})")
    return replace(plan, tensors=tuple(tensors), request=request, warnings=warnings)


def _stored(norms: dict[str, F32], checkpoint: Checkpoint, path: Path) -> dict[str, Tensor]:
    """Norms in a file of F32, as tensors less the source's shift, which plans add."""
    found, places, at = {}, dict[str, int](), 0
    with path.open("wb") as file:
        for name, values in norms.items():
            places[name] = at
            at += file.write((values - np.float32(checkpoint.tensors[name].shift)).data)
    span = FileSpan.of(path)
    for name, at in places.items():
        source = checkpoint.tensors[name]
        part = Part(span, at, 4 * source.columns, "F32")
        found[name] = Tensor(name, source.shape, ENCODINGS["f32"], (part,), place=source.place)
    return found


def _parts(tokens: Tokens) -> tuple[Tokens, Tokens]:
    """Sequences to tune on, and those held out, which are spread over the text.

    Raises:
        InputError: there are not enough.
    """
    count = min(max(len(tokens) // _HELD, _LEAST), _MOST)
    if len(tokens) < 2:
        raise InputError(
            "--refine needs two sequences of text, one of them to measure on",
            "give more text, or shorter sequences with --calibration-context",
        )
    held = ((np.arange(count) + 0.5) * len(tokens) / count).astype(int)
    return np.delete(tokens, held, axis=0), tokens[held]


def _is_streamed(checkpoint: Checkpoint, basis: Basis, free: int | None, workers: int) -> bool:
    """Whether a model does not fit into memory as a whole, so that it is read a layer at a time.

    Raises:
        UsageError: it does not fit then either.
    """
    from gemmaq.calibration import refine_norms

    settings = basis.calibration
    asked = checkpoint.config, settings.used or settings.tokens, settings.context, workers
    whole, streamed = (refine_norms.memory(*asked, streamed=streamed) for streamed in (False, True))
    if free is not None and min(whole, streamed) > free:
        raise UsageError(
            f"--refine takes about {min(whole, streamed) / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free",
            "leave it out, or take fewer --calibration-tokens, a smaller --calibration-context or one of --threads",
        )
    return free is not None and whole > free


def _tuned(
    plan: Plan, checkpoint: Checkpoint, basis: Basis, *, resources: Resources, progress: ProgressCallback
) -> tuple[Refinement, dict[str, F32]]:
    """What came of the refinement of a plan, and its norms: canonical name -> f32; none if those of the source stay."""
    from gemmaq.calibration import refine_norms
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import free_memory, open_device

    refine, started = _asked(plan), time.monotonic()
    assert refine is not None
    if refine.kept == 0:
        return refine, {}
    tokens = _parts(sequences(checkpoint, basis))
    deadline = None if refine.steps else started + 60 * (refine.minutes or 0)
    planned = {tensor.source.name: tensor for tensor in plan.tensors}

    def weights(tensor: Tensor, first: int, count: int, reader: Reader) -> F32:
        return written.weights(planned[tensor.name], first, count, reader)

    def told(done: int, total: int, loss: float | None) -> None:
        note = "" if loss is None else f"KL divergence {loss:.4f}"
        progress(
            Progress(
                "tuning norms, a layer at a time" if streamed else "tuning norms",
                done,
                total or None,
                "steps",
                note=note,
            )
        )

    with open_device(resources.device, resources.threads) as device, decoder(checkpoint, device) as teacher:
        streamed = _is_streamed(checkpoint, basis, free_memory(device.torch_device), resources.threads)
        teacher.reader.open(spans_of(tensor.stored for tensor in plan.tensors))
        student = replace(teacher, weights=weights)
        schedule = refine_norms.Schedule(deadline, refine.steps, refine.kept)
        tuned: Tuned = refine_norms.tune(teacher, student, tokens, schedule=schedule, streamed=streamed, progress=told)
    if refine.kept is not None:
        return refine, dict(tuned.norms)
    seconds = time.monotonic() - started
    found = replace(refine, steps=tuned.steps, kept=tuned.kept, before=tuned.before, after=tuned.after, seconds=seconds)
    return found, dict(tuned.norms) if tuned.kept else {}
