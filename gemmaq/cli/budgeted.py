"""A conversion with a budget of bytes: choose types, write and measure them, tell what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemmaq.cli import console
from gemmaq.cli.budget import Wanted
from gemmaq.cli.console import Output
from gemmaq.errors import InputError, UsageError
from gemmaq.files.quoting import shell

if TYPE_CHECKING:
    from gemmaq.calibration.complete import Basis
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.convert.run import Conversion, Options
    from gemmaq.planning.sensitivities import Sensitivities


@dataclass(frozen=True, slots=True)
class Job:
    """What else a run with a budget needs.

    Attributes:
        source: the source as the user named it.
        conversion: source, request and basis of the codes; its folder is not looked at.
        measuring: what sensitivities are measured on.
        output: folder to create, None for the usual one.
        options: threads, device, force.
        dry_run: whether nothing is written.
    """

    source: str
    conversion: Conversion
    measuring: Basis | None
    output: Path | None
    options: Options
    dry_run: bool

    def folder(self, label: str) -> Path:
        """The folder to create for types of this label."""
        from gemmaq.models.identity import identify

        checkpoint, (request,) = self.conversion.checkpoint, self.conversion.requests
        return self.output or Path("-".join([identify(checkpoint.name).stem, label, *request.to]))


def convert(asked: Wanted, job: Job, shown: Output) -> None:
    """Choose types for a budget, write and measure them, and print what came of it.

    Raises:
        UsageError, InputError, OutputError: see `budget.run`.
    """
    from gemmaq.budget.check import held_out
    from gemmaq.budget.choose import Source, check
    from gemmaq.budget.goal import Fit, room
    from gemmaq.budget.run import Work, carry_out, decide
    from gemmaq.cli.views import budget as views
    from gemmaq.convert.run import prepare
    from gemmaq.files.atomic import check_output
    from gemmaq.vram import kv_costs

    started, conversion = time.monotonic(), job.conversion
    checkpoint, (request,) = conversion.checkpoint, conversion.requests
    if checkpoint.family.embeds or checkpoint.family.drafts:
        raise UsageError(
            f"{checkpoint.name} predicts no tokens by itself, and {asked.flag} chooses types by what predictions lose",
            "--quant q8_0 names a type",
        )
    checks = asked.check if asked.check is not None else _has_torch()
    prepared = prepare(conversion, force=True, dry_run=True)
    for note in checkpoint.remarks:
        console.note(note)
    if isinstance(asked.goal, Fit) and (costly := kv_costs.warning(asked.goal.load.kv_types)):
        console.note(costly)
    # what can be refused at once is, before anything is measured
    room(asked.goal, checkpoint, prepared.plans[0])
    if asked.sensitivity is None:
        check(checkpoint, request, asked.goal, prepared.fits)
    if job.output is not None:
        inputs = (*checkpoint.files, *conversion.inputs)
        check_output(job.output, 0, inputs=inputs, force=job.options.force)
    sensitivities = _sensitivities(asked, job, shown)
    source = Source(checkpoint, request, asked.goal, sensitivities, prepared.fits)
    decision = decide(source)
    warnings = [*decision.chosen.plan.notes, *decision.chosen.plan.warnings]
    for warning in decision.chosen.plan.warnings:
        console.warn(warning)
    if conversion.basis is None and not job.dry_run and request.recipe.method == "auto":
        shown.say("codes are rounded to the nearest value; --method gptq makes better ones of the same size")
    if job.dry_run:
        shown.emit(
            lambda: views.document(job.source, decision, None, folder=job.folder, warnings=warnings, seconds=None),
            essential=lambda: [str(job.folder(decision.chosen.plan.label))],
            show=lambda: views.show(decision, None, folder=job.folder, seconds=None),
        )
        return
    work = Work(
        folder=lambda plan: job.folder(plan.label),
        basis=conversion.basis,
        inputs=conversion.inputs,
        options=job.options,
        check=held_out() if checks else None,
        reference=_public(job.source, checkpoint),
    )
    with console.progress(None, shown.silent) as progress:
        done = carry_out(decision, work, progress)
    seconds = time.monotonic() - started
    shown.emit(
        lambda: views.document(job.source, decision, done, folder=job.folder, warnings=warnings, seconds=seconds),
        essential=lambda: [str(done.artifact.folder)],
        show=lambda: views.show(decision, done, folder=job.folder, seconds=seconds),
        made=True,
    )


def _has_torch() -> bool:
    from importlib.util import find_spec

    return find_spec("torch") is not None and find_spec("transformers") is not None


def _public(source: str, checkpoint: Checkpoint) -> str:
    """The repository of the source, else its name, as paths are private."""
    from gemmaq.hub import parse

    named = None if Path(source).exists() else parse(source)
    return named.repo if named is not None else checkpoint.name


def _sensitivities(asked: Wanted, job: Job, shown: Output) -> Sensitivities:
    """Sensitivities from the file, from the cache, or measured now."""
    from gemmaq.budget import sensed
    from gemmaq.budget.options import candidates
    from gemmaq.calibration.resources import Resources

    conversion = job.conversion
    checkpoint, (request,) = conversion.checkpoint, conversion.requests
    if asked.sensitivity is not None:
        return sensed.given(asked.sensitivity, checkpoint)
    if not checkpoint.weights_here:
        raise InputError(
            f"the sensitivities of {checkpoint.name} are measured on its weights, and --dry-run downloads none",
            f"give them with --sensitivity FILE, or run gemmaq pull {shell(str(job.source))} first",
        )
    if job.measuring is None or job.measuring.text is None:
        raise UsageError(
            f"{asked.flag} measures sensitivities on text, and there is an importance matrix",
            "give them with --sensitivity FILE: gemmaq sensitivity measures them",
        )
    found, resources = job.measuring, Resources(job.options.device, job.options.threads)

    def measure(types: Sequence[str]) -> Sensitivities:
        from gemmaq.calibration import sensitivity  # type: ignore[attr-defined, unused-ignore]

        shown.say(
            "sensitivities are measured, and kept for the next time; gemmaq sensitivity does that apart, and can go on "
            "where it was interrupted"
        )
        with console.progress(None, shown.silent) as progress:
            made: Sensitivities = sensitivity.measure(
                checkpoint, found, resources=resources, types=types, progress=progress
            )
        return made

    return sensed.measured(
        checkpoint,
        found,
        [encoding.name for encoding in candidates(request.to[0]) if not encoding.is_float],
        method=request.recipe.method,
        measure=measure,
        folder=sensed.default_folder(),
    )
