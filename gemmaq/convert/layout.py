"""Plans of requests, one for each type and container, and the files they are laid out in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemmaq import containers
from gemmaq.checkpoint import Checkpoint
from gemmaq.containers import Writer
from gemmaq.containers.layout import OutputFile
from gemmaq.methods.lattice import GridFit
from gemmaq.planning.containers import CONTAINERS
from gemmaq.planning.drafter import divided, with_drafter
from gemmaq.planning.plan import Plan
from gemmaq.planning.planner import make_plan
from gemmaq.planning.request import Request


@dataclass(frozen=True, slots=True)
class Variant:
    """A model in one type: its plan laid out in files of one container."""

    plan: Plan
    files: tuple[OutputFile, ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """The files of one folder: a model in one type, or in several that lie side by side.

    Attributes:
        container: module that writes them.
        folder: the folder.
        variants: the model in each type. A file that several have, as they have the mmproj file, is the same in all.
    """

    container: Writer
    folder: Path
    variants: tuple[Variant, ...]

    @property
    def placed(self) -> Iterator[tuple[Plan, OutputFile]]:
        """Every file once, with the plan that it is written by."""
        names: set[str] = set()
        for variant in self.variants:
            yield from ((variant.plan, file) for file in variant.files if file.name not in names)
            names.update(file.name for file in variant.files)

    @property
    def files(self) -> tuple[OutputFile, ...]:
        """Every file once."""
        return tuple(file for _, file in self.placed)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plan of each variant."""
        return tuple(variant.plan for variant in self.variants)

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
    own, beside = divided(fits)
    plans = []
    for name in only or request.to:
        target = containers.writer(name).FORMAT
        plan = make_plan(checkpoint, request, target, fits=own, shared=shared)
        plans.append(with_drafter(plan, checkpoint, request, target, beside))
    return plans


def lay_out(checkpoint: Checkpoint, plans: Sequence[Plan], folder: Path) -> list[Artifact]:
    """Lay out plans in files.

    Args:
        checkpoint: the source.
        plans: one for each type and container.
        folder: folder of the one artifact, or parent of several: a folder for each container, and in it one for each
            type where the container has no room for several.

    Raises:
        InputError: the tokenizer is unusable, or the container cannot express the model.
    """
    by_container: dict[str, list[Plan]] = {}
    for plan in plans:
        by_container.setdefault(plan.format, []).append(plan)
    artifacts = []
    for name, own in by_container.items():
        container, place = containers.writer(name), folder / name if len(by_container) > 1 else folder
        variants = [
            Variant(plan, (*container.lay_out(checkpoint, plan, plan.request.shard_bytes), *_matrix(plan)))
            for plan in own
        ]
        if CONTAINERS[name].several or len(variants) == 1:
            artifacts.append(Artifact(container, place, tuple(variants)))
        else:
            artifacts += [Artifact(container, place / v.plan.label.lower(), (v,)) for v in variants]
    return artifacts


def _matrix(plan: Plan) -> list[OutputFile]:
    """The file of the importance matrix beside a model, if it is kept; its content is there when it is computed."""
    if plan.matrix is None or not plan.matrix.size:
        return []
    return [OutputFile(plan.matrix.file, plan.matrix.size, plan.matrix_file or b"")]
