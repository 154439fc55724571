"""Carry a choice out: write the chosen types and the best uniform ones, measure both, and keep the better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gemmaq.artifact import measured as on_record
from gemmaq.artifact.outcomes import OutcomeCounter
from gemmaq.artifact.provenance import Quality
from gemmaq.budget import goal as goals
from gemmaq.budget import uniform
from gemmaq.budget.check import Check, Measured, measure
from gemmaq.budget.choose import Choice, Source, choose
from gemmaq.calibration.complete import Basis
from gemmaq.calibration.resources import Resources
from gemmaq.checkpoint import Checkpoint
from gemmaq.convert.layout import Artifact
from gemmaq.convert.memory_table import MEMORY
from gemmaq.convert.run import Conversion, Options, artifacts
from gemmaq.convert.side_files import finisher
from gemmaq.convert.source_digests import hashing
from gemmaq.convert.write import write
from gemmaq.files.atomic import check_output, staging
from gemmaq.files.workplace import claimed, folder_beside
from gemmaq.planning.plan import Plan
from gemmaq.planning.request import Budget
from gemmaq.progress import ProgressCallback, ignore
from gemmaq.sources.companions import ALL
from gemmaq.sources.open import open_source


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided before anything is written.

    Attributes:
        source: what types were chosen for.
        chosen: the types with the least predicted loss.
        uniform: the best uniform type that meets the goal, None if none does, or if it has the same types.
    """

    source: Source
    chosen: Choice
    uniform: Choice | None

    @property
    def candidates(self) -> tuple[Choice, ...]:
        """What is written and measured: the chosen types first."""
        return (self.chosen,) if self.uniform is None else (self.chosen, self.uniform)


@dataclass(frozen=True, slots=True)
class Work:
    """How a decision is carried out.

    Attributes:
        folder: plan -> folder to create for it.
        basis: text or importance matrix to calibrate on, None if no method is calibrated.
        inputs: files that were read besides the source, which must not be replaced.
        options: threads, device, force.
        check: text to measure the candidates on, None to trust the prediction.
        reference: public name of the source, for the record.
    """

    folder: Callable[[Plan], Path]
    basis: Basis | None
    inputs: tuple[Path, ...]
    options: Options
    check: Check | None
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """A budget met.

    Attributes:
        artifact: what was written.
        outcomes: how each tensor came out.
        kept: the candidate that it is.
        measured: measures of all candidates, none if they were not measured.
    """

    artifact: Artifact
    outcomes: OutcomeCounter
    kept: Choice
    measured: tuple[Measured, ...] = ()


def decide(source: Source) -> Decision:
    """Choose types for a goal, and find the uniform ones to compare them with.

    Raises:
        UsageError: no types meet the goal.
        InputError: the container cannot hold what the recipe asks for.
    """
    chosen = choose(source)
    other = uniform.best(source, chosen)
    if other is not None and _no_worse(other, chosen):
        chosen, other = other, None
    return Decision(source, *(_told(source, chosen, other)))


def _no_worse(other: Choice, chosen: Choice) -> bool:
    """Whether a uniform choice is predicted to be as good: it is the simpler one."""
    return other.predicted is not None and (chosen.predicted is None or other.predicted <= chosen.predicted)


def _told(source: Source, chosen: Choice, other: Choice | None) -> tuple[Choice, Choice | None]:
    """The choices with a record of what they were chosen for."""
    target, digest = goals.described(source.goal), source.sensitivities.digest
    named = () if other is None else (other.plan.label, _figure(other.predicted))

    def told(choice: Choice) -> Choice:
        budget = Budget(target, digest, _figure(choice.predicted), *named)
        return replace(choice, plan=replace(choice.plan, request=replace(choice.plan.request, budget=budget)))

    return told(chosen), None if other is None else told(other)


def _figure(value: float | None) -> float:
    return float(f"{value or 0:.4g}")


def carry_out(decision: Decision, work: Work, progress: ProgressCallback = ignore) -> Done:
    """Write the candidates beside the output, measure them, and give the better one its name.

    Nothing else stays, and nothing appears before all is done.

    Raises:
        UsageError, InputError: see `convert.run.run`.
        OutputError: the output exists, does not fit, or cannot be written.
    """
    checkpoint, candidates = decision.source.checkpoint, decision.candidates
    if work.check is None:
        candidates = candidates[:1]
    folders = [work.folder(candidate.plan) for candidate in candidates]
    inputs = (*checkpoint.files, *work.inputs)
    for folder in folders:
        check_output(folder, 0, inputs=inputs, force=work.options.force)
    with ExitStack() as stack:
        for folder in dict.fromkeys(folders):
            stack.enter_context(claimed(folder))
        base = stack.enter_context(folder_beside(folders[0]))
        written, outcomes = _write(decision.source, candidates, base / "candidates", work=work, progress=progress)
        if len(written) == 1 and work.check is None:
            return Done(_moved(written[0], folders[0], work.options.force), outcomes, candidates[0])
        return _better(decision.source, candidates, written, work=work, outcomes=outcomes, progress=progress)


def _write(
    source: Source, candidates: Sequence[Choice], folder: Path, *, work: Work, progress: ProgressCallback
) -> tuple[list[Artifact], OutcomeCounter]:
    """Write every candidate into a folder of its own; all share the reading of the source and the calibration."""
    plans = [candidate.plan for candidate in candidates]
    conversion = Conversion(source.checkpoint, tuple(plan.request for plan in plans), folder, work.basis, work.inputs)
    with (
        hashing(source.checkpoint, plans, work.options.digests) as hasher,
        artifacts(conversion, plans, work.options, progress) as ready,
    ):
        variants = [(artifact.container, variant) for artifact in ready for variant in artifact.variants]
        apart = [
            Artifact(container, folder / f"{number}", (variant,))
            for number, (container, variant) in enumerate(variants)
        ]
        finishing = finisher(source.checkpoint, apart, hasher, work.options.extra_files)
        outcomes = write(
            apart,
            folder,
            threads=work.options.threads,
            progress=progress,
            finish=finishing.finish,
            watch=finishing.watch,
        )
    return apart, outcomes


def _better(
    source: Source,
    candidates: Sequence[Choice],
    written: Sequence[Artifact],
    *,
    work: Work,
    outcomes: OutcomeCounter,
    progress: ProgressCallback,
) -> Done:
    """Measure candidates, put the figures on record, and keep the one that diverges least, the first of equals."""
    assert work.check is not None
    opened = [_opened(artifact) for artifact in written]
    resources = Resources(work.options.device, work.options.threads)
    measured = measure(source.checkpoint, opened, work.check, resources=resources, progress=progress)
    best = min(range(len(measured)), key=lambda at: measured[at].kl)
    kept, artifact, score = candidates[best], written[best], measured[best]
    tokens = sum(len(each.kl) for each in score.scores.values())
    figures = (float(f"{value:.4g}") for value in (score.kl, score.top1, score.perplexity))
    quality = Quality(
        work.reference or source.checkpoint.name, tuple(score.scores), tokens, work.check.context, *figures
    )
    more = {"candidates": [_told_of(*each) for each in zip(candidates, written, measured, strict=True)]}
    on_record.write(artifact.folder, {0: quality}, memory=MEMORY, more={0: more})
    return Done(_moved(artifact, work.folder(kept.plan), work.options.force), outcomes, kept, tuple(measured))


def _told_of(candidate: Choice, artifact: Artifact, measured: Measured) -> dict[str, Any]:
    """A candidate as gemmaq.json tells of it."""
    return {
        "type": candidate.plan.label,
        "bytes": artifact.size,
        "bits_per_weight": round(candidate.plan.bits_per_weight, 4),
        "predicted": _figure(candidate.predicted),
        "kl": _figure(measured.kl),
        "by_kind": {kind: _figure(score.kl_mean) for kind, score in measured.scores.items()},
    }


def _opened(artifact: Artifact) -> Checkpoint:
    """A candidate on disk, its text model alone."""
    weights = next(file.name for file in artifact.files if file.placements)
    single = artifact.container.FORMAT.gguf_names
    return open_source(str(artifact.folder / weights if single else artifact.folder), ALL)


def _moved(artifact: Artifact, folder: Path, force: bool) -> Artifact:
    """An artifact under its final name."""
    with staging(folder, force) as stage:
        for path in sorted(artifact.folder.iterdir()):
            path.rename(stage / path.name)
    return replace(artifact, folder=folder)
