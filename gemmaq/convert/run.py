"""The one use case: plan, calibrate, lay out, write, finish. Every caller that converts goes through here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gemmaq import containers
from gemmaq.artifact.outcomes import OutcomeCounter
from gemmaq.calibration import refine
from gemmaq.calibration.complete import Basis, complete, needed
from gemmaq.calibration.resources import Resources
from gemmaq.calibration.resume import folder_of, mark, owned
from gemmaq.checkpoint import Checkpoint
from gemmaq.convert.hashing import SourceDigests
from gemmaq.convert.ladder import by_type, check_distinct, remarks
from gemmaq.convert.layout import Artifact, lay_out, make_plans
from gemmaq.convert.side_files import finisher, no_extra_files
from gemmaq.convert.source_digests import hashing
from gemmaq.convert.write import write
from gemmaq.errors import UsageError
from gemmaq.files.atomic import check_output, free_space
from gemmaq.files.workplace import claim, claimed
from gemmaq.inference.peers import ALONE, Peers
from gemmaq.methods.lattice import GridFit
from gemmaq.planning.advice import kept
from gemmaq.planning.plan import Plan
from gemmaq.planning.request import Request
from gemmaq.planning.survey import fits_for
from gemmaq.progress import ProgressCallback, ignore


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion of a source, as requested.

    Attributes:
        checkpoint: the source.
        requests: what is asked for, one request for each type; they differ in their recipes and containers.
        folder: folder to create; several containers each get a subfolder.
        basis: text or importance matrix to calibrate on, None if no method is calibrated.
        inputs: files that were read besides the source, which must not be replaced.
    """

    checkpoint: Checkpoint
    requests: tuple[Request, ...]
    folder: Path
    basis: Basis | None = None
    inputs: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a run, apart from what is converted.

    Attributes:
        threads: number of workers.
        device: device for calibration, None for the best there is.
        force: replace an earlier artifact.
        extra_files: called when the weights are written; name -> content of more files for each artifact.
        digests: how the digests of the source's files are found.
        peers: processes that share the calibration; the main one carries out all the rest.
        resume: keep what is calibrated beside the folder until all is written, and go on with what is there.
    """

    threads: int
    device: str | None = None
    force: bool = False
    extra_files: Callable[[], Mapping[str, bytes]] = no_extra_files
    digests: SourceDigests = SourceDigests.REMEMBERED
    peers: Peers = ALONE
    resume: bool = False

    def resources(self, folder: Path) -> Resources:
        """Where calibration for an artifact in a folder computes."""
        return Resources(self.device, self.threads, self.peers, folder_of(folder) if self.resume else None)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Plans before calibration.

    Attributes:
        plans: one for each type and container.
        fits: canonical name -> the grid that the weights lie on, as far as the request asks.
        warnings: a sentence for each thing that costs the user something.
        notes: a sentence for each thing that was taken, left out or chosen otherwise, and costs nothing.
    """

    plans: list[Plan]
    fits: Mapping[str, GridFit]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Artifacts that were written, and how each tensor came out."""

    artifacts: list[Artifact]
    outcomes: OutcomeCounter


def prepare(conversion: Conversion, *, force: bool = False, dry_run: bool = False) -> Prepared:
    """Plan a conversion. Whatever can be refused at once is refused before the weights are read.

    Args:
        conversion: source, request and folder.
        force: an earlier artifact may be replaced.
        dry_run: nothing will be written, so that missing space is only a warning.

    Raises:
        UsageError: two types are the same.
        OutputError: the folder exists, holds the source, or does not fit.
        InputError: a container cannot hold what is asked for, or the source is unusable.
    """
    checkpoint, requests, folder = conversion.checkpoint, conversion.requests, conversion.folder
    inputs = (*checkpoint.files, *conversion.inputs)
    check_output(folder, 0, inputs=inputs, force=force)
    if not dry_run:
        claim(folder)
    plans = _plans(conversion, {})
    _check_tokenizers(checkpoint, plans)
    size = sum(tensor.nbytes for plan in plans for tensor in plan.everything)
    if not dry_run:
        check_output(folder, size, inputs=inputs, force=force)
    fits = fits_for(checkpoint, requests)
    plans = _plans(conversion, fits)
    refine.check(plans, checkpoint)
    check_distinct(plans)
    warnings = dict.fromkeys(by_type([(plan.label, plan.warnings) for plan in plans]))
    parent, free = free_space(folder)
    if size > free:
        warnings[f"{parent} has {free:,} bytes free, {size:,} are needed"] = None
    codes = [(plan.label, [said] if (said := kept(checkpoint, plan)) else []) for plan in plans]
    notes = dict.fromkeys([*remarks(requests), *by_type([(plan.label, plan.notes) for plan in plans]), *by_type(codes)])
    return Prepared(plans, fits, tuple(warnings), tuple(notes))


def _check_tokenizers(checkpoint: Checkpoint, plans: Sequence[Plan]) -> None:
    """Refuse what verify would refuse of a tokenizer that is written or copied.

    Raises:
        InputError: the tokenizer of the model or of its drafter is unusable.
    """
    if not checkpoint.weights_here:  # files of the tokenizer are downloaded with the weights
        return
    copied = any(not containers.writer(plan.format).FORMAT.gguf_names for plan in plans)
    checkpoint.check_tokenizer(copied=copied)
    if checkpoint.drafter is not None and any(plan.drafter is not None for plan in plans):
        checkpoint.drafter.check_tokenizer(copied=copied)


def _plans(conversion: Conversion, fits: Mapping[str, GridFit]) -> list[Plan]:
    """The plans of all requests."""
    return [plan for request in conversion.requests for plan in make_plans(conversion.checkpoint, request, fits)]


@contextmanager
def artifacts(
    conversion: Conversion, plans: Sequence[Plan], options: Options, progress: ProgressCallback = ignore
) -> Iterator[list[Artifact]]:
    """Plans completed with what calibrated methods need, and laid out; calibrated codes are on disk until the end.

    Raises:
        UsageError: torch is missing, or there is nothing to calibrate on.
        InputError: text or importance matrix do not fit the model, or the tokenizer is unusable.
        OutputError: there is no room for calibrated codes.
    """
    checkpoint, basis, near = conversion.checkpoint, conversion.basis, conversion.folder
    resources = options.resources(near)
    with ExitStack() as stack:
        if needed(plans):
            if basis is None:
                raise UsageError(f"nothing to calibrate method {needed(plans)[0]} on", "give text with --text FILE")
            completing = complete(plans, checkpoint, basis, resources=resources, near=near, progress=progress)
            plans = stack.enter_context(completing)
        refining = refine.refined(plans, checkpoint, basis, resources=resources, near=near, progress=progress)
        plans = stack.enter_context(refining)
        yield lay_out(checkpoint, plans, near)


def assist(conversion: Conversion, plans: Sequence[Plan], options: Options) -> None:
    """Share the calibration of the main process, which carries the same plans out.

    Raises:
        UsageError, InputError: see `artifacts`.
    """
    assert conversion.basis is not None, "there is a calibration to share"
    resources = options.resources(conversion.folder)
    share = partial(complete, resources=resources, near=conversion.folder, progress=ignore)
    with share(plans, conversion.checkpoint, conversion.basis):
        return


def run(conversion: Conversion, plans: Sequence[Plan], options: Options, progress: ProgressCallback = ignore) -> Result:
    """Carry plans out: calibrate, lay out, write, and finish with the side files.

    All files appear under the conversion's folder together, or not at all.

    Raises:
        UsageError, InputError: see `artifacts`; or the source holds NaN or infinite weights.
        OutputError: the folder exists, does not fit, or cannot be written.
    """
    with (
        claimed(conversion.folder),
        owned(folder_of(conversion.folder)) if options.resume else nullcontext(),
        hashing(conversion.checkpoint, plans, options.digests) as hasher,
        artifacts(conversion, plans, options, progress) as ready,
    ):
        finishing = finisher(conversion.checkpoint, ready, hasher, options.extra_files)

        def finish(artifact: Artifact, place: Path, counter: OutcomeCounter) -> None:
            finishing.finish(artifact, place, counter)
            if options.resume:
                mark(conversion.folder, artifact.folder, place)

        outcomes = write(
            ready,
            conversion.folder,
            threads=options.threads,
            progress=progress,
            force=options.force,
            finish=finish,
            watch=finishing.watch,
        )
    return Result(ready, outcomes)
