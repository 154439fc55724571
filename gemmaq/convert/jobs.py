"""From what a user asks for to what a run writes: a job for each container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemmaq import containers
from gemmaq.checkpoint import Checkpoint
from gemmaq.containers import Container
from gemmaq.containers.layout import OutputFile
from gemmaq.methods.lattice import Verdict
from gemmaq.planning.plan import Plan
from gemmaq.planning.planner import make_plan
from gemmaq.planning.request import Request


@dataclass(frozen=True, slots=True)
class Artifact:
    """One container's files, to be written into one folder."""

    container: Container
    files: tuple[OutputFile, ...]
    folder: Path

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Job:
    """One container of a run: what it writes and where."""

    plan: Plan
    artifact: Artifact


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
