"""`gemmaq imatrix`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import calibration, console, ranks
from gemmaq.cli.console import Output
from gemmaq.cli.options import Device, Json, Threads, WeightFile, check_file, cores, count, opened, quiet_option
from gemmaq.cli.views import imatrix as views
from gemmaq.errors import UsageError
from gemmaq.inference.peers import Peers
from gemmaq.models.samples import SAMPLE

if TYPE_CHECKING:
    from gemmaq.calibration.complete import Basis
    from gemmaq.calibration.imatrix import Imatrix
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.inference.documents import Tokens

_EVERY = 128


@dataclass(frozen=True, slots=True)
class Part:
    """One of several parts of a text, from 1."""

    number: int
    count: int

    @classmethod
    def parsed(cls, text: str) -> Part:
        """The part that `I/N` means."""
        number, _, count = str(text).partition("/")
        if all(word.isascii() and word.isdigit() for word in (number, count)) and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise typer.BadParameter(f"{text!r} is not a part such as 1/4, 2/4, 3/4 or 4/4.")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, tokens: Tokens) -> Tokens:
        """The sequences of this part, i64 [sequences, length].

        Raises:
            UsageError: there are more parts than sequences.
        """
        if self.count > len(tokens):
            raise UsageError(
                f"--part {self}: the text has {len(tokens)} sequences of {tokens.shape[1]} tokens",
                "choose fewer parts, or more --calibration-tokens",
            )
        return tokens[Peers(self.number - 1, self.count).share(len(tokens))]


def imatrix(
    *,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help=f"Folder, .gguf file, repository (org/name), or {SAMPLE.source}. Merging alone needs none.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="File to write, such as imatrix.gguf.")
    ] = None,
    text: calibration.Texts = None,
    calibration_kind: calibration.Kinds = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option(
            "--merge",
            metavar="FILE",
            help="Importance matrix of the same model to add, from llama.cpp too; can be repeated. Without --text, "
            "these files are merged and nothing is computed.",
        ),
    ] = None,
    calibration_tokens: calibration.Tokens = None,
    calibration_context: calibration.Context = None,
    part: Annotated[
        Part | None,
        typer.Option(
            "--part",
            metavar="I/N",
            parser=Part.parsed,
            help="Compute one of N parts of the text, for machines that share nothing: one computes 1/2, another 2/2. "
            "Then add the files up with --merge.",
        ),
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(
            "--save-every",
            metavar="N",
            parser=count(1),
            help="Pass N sequences at a time through the model, and write the file after each pass: if interrupted, it "
            f"holds those that are done. Default: {_EVERY}.",
        ),
    ] = None,
    resume: calibration.Resume = False,
    show_statistics: Annotated[
        Path | None,
        typer.Option(
            "--show-statistics", metavar="FILE", help="Show what an importance matrix says, and do nothing else."
        ),
    ] = None,
    weights: WeightFile = None,
    device: Device = None,
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check text and model; compute and write nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the file's path")] = False,
) -> None:
    """Compute importance matrices from text, merge and show them.

    It says how large the inputs of every weight matrix are on that text. The file has llama.cpp's format, for
    `gemmaq convert --method importance --imatrix FILE` and for llama-quantize.
    """
    from gemmaq.calibration.complete import importance
    from gemmaq.calibration.resources import Resources
    from gemmaq.calibration.resume import check_own, folder_of, is_own, owned

    peers = ranks.join(device)
    shown = Output("imatrix", as_json, quiet, peers.main)
    settings = {"kinds": calibration_kind, "tokens": calibration_tokens, "context": calibration_context}
    given = [*calibration.flags(settings), *(["--part"] if part else []), *(["--save-every"] if save_every else [])]
    if show_statistics is not None:
        named = {"SOURCE": source, "-o": output, "--text": text, "--merge": merge}
        given = [*(flag for flag, value in named.items() if value), *given]
        if given:
            raise UsageError(f"--show-statistics does nothing else, so {given[0]} has no use", "leave it out")
        views.show_statistics(show_statistics, shown)
        return
    if output is None:
        raise UsageError("there is no file to write", "name one: -o imatrix.gguf")
    basis = _basis(text, merge, settings=settings, given=given)
    if basis is not None and source is None:
        raise UsageError("there is no model to compute an importance matrix of", "name one as SOURCE")
    if weights is not None and source is None:
        raise UsageError("--weights is for a SOURCE", "name one, or leave it out")
    if peers.size > 1 and basis is None:
        raise UsageError("files are merged by a single process", "start it without torchrun")
    kept = folder_of(output) if resume else None
    if resume and basis is None:
        raise UsageError("--resume goes on with a calibration, and files are only merged", "leave it out")
    if kept is not None:
        check_own(kept)
        force = force or is_own(kept)
    if peers.main:
        check_file(output, force)
    parts = _merged_files(merge or [])
    checkpoint = None if source is None else opened(source, dry_run or basis is None, shown.silent, weights=weights)
    tokens = _tokens(checkpoint, basis, parts, part)
    names = basis.calibration.texts if basis is not None else ()
    report: dict[str, Any] = {
        "path": str(output),
        "texts": list(names),
        "merged": [str(path) for path in merge or ()],
        "sequences": 0 if tokens is None else len(tokens),
        "tokens": 0 if tokens is None else tokens.size,
        "part": str(part) if part is not None else None,
    }
    work = [] if tokens is None else [f"{len(tokens)} sequences of {tokens.shape[1]} tokens from {', '.join(names)}"]
    work = [f"part {part}: {work[0]}"] if work and part is not None else work
    work += [f"{len(parts)} file{'s' if len(parts) > 1 else ''} merged"] if parts else []
    if not dry_run:
        with console.progress(None, shown.silent) as progress:
            computed: Iterator[Imatrix] = iter(())
            if checkpoint is not None and tokens is not None:
                every, resources = save_every or _EVERY, Resources(device, threads or cores(), peers, kept)
                if every < len(tokens):
                    shown.say(f"{output} is written after every {every} of {len(tokens)} sequences")
                computed = importance(checkpoint, tokens, names, resources=resources, progress=progress, every=every)
            if not peers.main:
                assert not [*computed]
                return
            with owned(kept) if kept is not None else nullcontext():
                matrix = _save(output, parts, computed, force)
        report |= {"datasets": list(matrix.datasets), "chunks": matrix.chunks, "matrices": len(matrix.entries)}
        report |= {"bytes": output.stat().st_size, "warnings": list(matrix.warnings)}
        for warning in matrix.warnings:
            console.warn(warning)

    def show() -> None:
        console.out(str(output))
        console.say("; ".join([*work, *(["nothing was written (dry run)"] if dry_run else [])]))

    shown.emit(lambda: report, essential=lambda: [str(output)], show=show, made=not dry_run)


def _basis(
    text: list[Path] | None, merge: list[Path] | None, *, settings: Mapping[str, Any], given: Sequence[str]
) -> Basis | None:
    """Text to compute from; None where files are only merged.

    Raises:
        UsageError: a file would be merged twice, or flags of computing are given without text.
    """
    if merge and len({path.absolute() for path in merge}) < len(merge):
        raise UsageError("--merge names a file twice", "name each once, or its sums count twice")
    if text or settings.get("kinds") or not merge:
        known = {name: value for name, value in settings.items() if value is not None}
        return calibration.from_text("imatrix", text, known)
    if given:
        raise UsageError(f"{given[0]} has no use where files are only merged", "add --text FILE, or leave it out")
    return None


def _merged_files(paths: Sequence[Path]) -> list[Imatrix]:
    """Importance matrices to merge.

    Raises:
        NotFoundError, InputError: a file is missing or unusable, or they are of different models.
    """
    from gemmaq.calibration.imatrix import read
    from gemmaq.calibration.merge import merged

    parts = [read(path) for path in paths]
    if parts:
        merged(parts)
    return parts


def _tokens(
    checkpoint: Checkpoint | None, basis: Basis | None, parts: Sequence[Imatrix], part: Part | None
) -> Tokens | None:
    """The tokens of the text, or of a part of it, i64 [sequences, length]; None where nothing is computed.

    Raises:
        UsageError: there are more parts than sequences.
        InputError: there is too little text, or files to merge are of another model.
    """
    from gemmaq.calibration.complete import sequences
    from gemmaq.calibration.imatrix import check

    if checkpoint is None:
        return None
    for other in parts:
        check(other, checkpoint)
    if basis is None:
        return None
    tokens = sequences(checkpoint, basis)
    return part.of(tokens) if part is not None else tokens


def _save(output: Path, parts: Sequence[Imatrix], computed: Iterator[Imatrix], force: bool) -> Imatrix:
    """Merge files with what is computed, and write the result as it grows.

    Args:
        output: file to write.
        parts: importance matrices to merge with.
        computed: those of more and more sequences; none where files are only merged.
        force: replace an existing file.

    Returns:
        The result.
    """
    from gemmaq.calibration.imatrix import document
    from gemmaq.calibration.merge import merged
    from gemmaq.files.atomic import write_file

    first = next(computed, None)
    matrix = merged([*parts, *([first] if first is not None else [])])
    write_file(output, document(matrix), force)
    done = first
    try:
        for done in computed:
            matrix = merged([*parts, done])
            write_file(output, document(matrix), True)
    except BaseException:
        if done is not None:
            console.say(f"{output} holds what is done: {done.chunks} sequences")
        raise
    return matrix
