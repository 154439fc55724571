"""Plans of a request, a container each, and the files they are laid out in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemmaq import containers
from gemmaq.checkpoint import Checkpoint
from gemmaq.containers import Writer
from gemmaq.containers.layout import OutputFile
from gemmaq.methods.lattice import GridFit
from gemmaq.planning.plan import Plan
from gemmaq.planning.planner import make_plan
from gemmaq.planning.request import Request


@dataclass(frozen=True, slots=True)
class Artifact:
    """A plan laid out: the files of one container, to be written into one folder."""

    plan: Plan
    container: Writer
    files: tuple[OutputFile, ...]
    folder: Path

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def make_plans(
    checkpoint: Checkpoint,
    request: Request,
    fits: Mapping[str, GridFit],
    *,
    only: Sequence[str] | None = None,
) -> list[Plan]:
    """Plan each container of a request.

    Args:
        checkpoint: the source.
        request: types, methods and containers.
        fits: canonical name -> the grid that the weights lie on.
        only: containers to plan for; None for all of the request. The others still count for the choice of scales.

    Raises:
        InputError: a container cannot hold what is asked for.
    """
    shared = any(containers.writer(name).FORMAT.portable for name in request.to)
    return [
        make_plan(checkpoint, request, containers.writer(name).FORMAT, fits=fits, shared=shared)
        for name in only or request.to
    ]


def lay_out(checkpoint: Checkpoint, plans: Sequence[Plan], request: Request, folder: Path) -> list[Artifact]:
    """Lay out each plan in files.

    Args:
        checkpoint: the source.
        plans: one for each container.
        request: which the plans were made for.
        folder: folder of the one artifact, or parent of several.

    Raises:
        InputError: the tokenizer is unusable, or the container cannot express the model.
    """
    artifacts = []
    for plan in plans:
        container = containers.writer(plan.format)
        files = container.lay_out(checkpoint, plan, request.shard_bytes)
        artifacts.append(Artifact(plan, container, files, folder / plan.format if len(request.to) > 1 else folder))
    return artifacts
