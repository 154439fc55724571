"""From what a user asks for to what a run writes: a job for each container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gemmaq import containers
from gemmaq.calibrate import Calibration
from gemmaq.checkpoint import Checkpoint
from gemmaq.convert import Artifact
from gemmaq.methods.lattice import Verdict
from gemmaq.plan import Plan, make_plan
from gemmaq.recipe import Recipe
from gemmaq.survey import survey


@dataclass(frozen=True, slots=True)
class Request:
    """Everything a user may ask of a conversion.

    Attributes:
        recipe: types and methods.
        to: names of containers, in order.
        portable: scales that every container holds exactly.
        scales: their type where a container has them in arrays of their own, `bf16` or `f16`.
        mmproj: type of the vision side where a container leaves a choice, None to leave it out.
        shard_bytes: that a file may have at most, None for what each container takes.
        calibration: what calibrated methods go by, None where there are none.
    """

    recipe: Recipe
    to: tuple[str, ...]
    portable: bool = False
    scales: str = "bf16"
    mmproj: str | None = "f16"
    shard_bytes: int | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One container of a run: what it writes and where."""

    plan: Plan
    artifact: Artifact


def grids(checkpoint: Checkpoint, request: Request) -> Mapping[str, Verdict]:
    """The grid each matrix lies on, as far as the request asks; the tokenizer is read meanwhile.

    Raises:
        InputError: the weights cannot be read.
    """
    recipe = request.recipe
    wanted = recipe.method != "nearest" and not recipe.body.is_float and checkpoint.weights_here
    with ThreadPoolExecutor(1) as ahead:
        ahead.submit(lambda: checkpoint.tokenizer)  # an error shows again where the tokenizer is needed
        return survey(checkpoint) if wanted else {}


def make_jobs(
    checkpoint: Checkpoint,
    request: Request,
    verdicts: Mapping[str, Verdict],
    folder: Path,
    only: Sequence[str] | None = None,
) -> list[Job]:
    """Plan and lay out what a request asks for.

    Args:
        checkpoint: the source.
        request: what is wanted of it.
        verdicts: the grids found.
        folder: of the one artifact, or the parent of several.
        only: containers to be made of those that are asked for together, None for all.

    Raises:
        InputError: a container cannot hold what is asked for, or the tokenizer is unusable.
    """
    shared = any(containers.find(name).FORMAT.portable for name in request.to)
    jobs = []
    for name in only or request.to:
        container = containers.find(name)
        plan = make_plan(
            checkpoint,
            request.recipe,
            container.FORMAT,
            verdicts,
            request.portable,
            shared,
            request.scales,
            request.mmproj,
        )
        files = container.lay_out(checkpoint, plan, request.shard_bytes)
        jobs.append(Job(plan, Artifact(container, files, folder / name if len(request.to) > 1 else folder)))
    return jobs
