"""`gemmaq install`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from gemmaq.cli import console
from gemmaq.errors import UsageError, VerificationError


@dataclass(frozen=True, slots=True)
class _Job:
    """What a user asked for."""

    artifact: Path
    name: str | None
    dest: Path | None
    model_yaml: bool
    force: bool
    dry_run: bool
    quiet: bool


def install(
    artifact: Annotated[Path, typer.Argument(help="The folder that gemmaq convert made, or a .gguf file.")],
    runtime: Annotated[str, typer.Option("--runtime", metavar="RUNTIME", help="ollama or lmstudio.")],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="What it is to be called: model:tag in Ollama, publisher/repo in LM Studio."
        ),
    ] = None,
    dest: Annotated[
        Path | None, typer.Option("--dest", metavar="DIR", help="LM Studio: a models folder other than its own.")
    ] = None,
    model_yaml: Annotated[
        bool, typer.Option("--model-yaml", help="LM Studio: write a model.yaml too, with the memory it takes.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a model of that name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the model's name, or its folder.")] = False,
) -> None:
    """Hand an artifact to Ollama, which must be running (OLLAMA_HOST says where), or to LM Studio; checked before."""
    from gemmaq.runtimes import NAMES, find

    wanted = runtime.lower().replace("-", "").replace(" ", "")
    if wanted not in _RUNTIMES:
        raise UsageError(f"unknown runtime {runtime!r}", f"runtimes: {', '.join(NAMES)}")
    find(artifact)
    job = _Job(artifact, name, dest, model_yaml, force, dry_run, quiet or as_json)
    report, key, lines = _RUNTIMES[wanted](job)
    if as_json:
        console.emit_json("install", {"runtime": wanted, "artifact": str(artifact), **report})
    elif quiet:
        console.out(report[key])
    else:
        for line in lines:
            console.out(line)
        if dry_run:
            console.say("nothing was done (dry run)")


_Done = tuple[dict[str, Any], str, list[str]]
"""The report, which of it is the essential value, and the lines for people."""


def _ollama(job: _Job) -> _Done:
    from gemmaq.runtimes import gather, ollama

    if job.dest is not None or job.model_yaml:
        raise UsageError("--dest and --model-yaml are LM Studio's", "leave them out")
    if job.name is not None:
        ollama.check_name(job.name)
    server = ollama.find()
    digests = _check(job)
    order = ollama.order(server, gather(job.artifact), job.name, job.force)
    uploads = ollama.uploads(order, digests)
    missing = sum(upload.size for upload in uploads if not upload.present)
    if not job.dry_run:
        label = f"{order.name} to Ollama {server.version} at {server.address}: {console.size(missing)} to send"
        with console.progress(label, job.quiet, missing) as progress:
            ollama.run(order, uploads, progress, lambda status: None if job.quiet else console.say(f"  {status}"))
    files = [
        {"path": str(u.path), "bytes": u.size, "sha256": u.digest.partition(":")[2], "present": u.present}
        for u in uploads
    ]
    report = {
        "name": order.name,
        "server": str(server.address),
        "version": server.version,
        "replaces": order.replaces,
        "files": files,
        "request": ollama.request(order, uploads),
    }
    lines = [f"{u.path}  {u.size:,} bytes, {'there already' if u.present else 'to send'}" for u in uploads]
    return report, "name", lines if job.dry_run else [f"ollama run {order.name}"]


def _lmstudio(job: _Job) -> _Done:
    from gemmaq.runtimes import gather, lmstudio

    if job.name is not None:
        lmstudio.check_name(job.name)
    _check(job)
    order = lmstudio.order(gather(job.artifact), job.name, job.dest, job.force, job.model_yaml)
    how: dict[str, str] = {}
    if not job.dry_run:
        with console.progress(f"{order.name} to {order.folder}", job.quiet, order.size) as progress:
            how = lmstudio.run(order, progress)
    files: list[dict[str, Any]] = [
        {"path": path.name, "bytes": path.stat().st_size} | ({"how": how[path.name]} if how else {})
        for path in order.files
    ]
    report = {"name": order.name, "path": str(order.folder), "replaces": order.replaces, "files": files}
    if order.yaml is not None:
        report["model_yaml"] = order.yaml
    lines = [f"{order.folder / file['path']}  {file['bytes']:,} bytes" for file in files]
    return report, "path", lines if job.dry_run else [str(order.folder)]


def _check(job: _Job) -> Mapping[str, str]:
    """The digests of the artifact's files by name, as far as it lists any, once it is found to be good.

    Raises:
        VerificationError: it is not; see `gemmaq verify`.
    """
    from gemmaq.verify.examine import examine

    with console.progress(f"checking {job.artifact}", job.quiet) as progress:
        (report,) = examine(job.artifact, progress)
    if report.problems:
        more = f", and {len(report.problems) - 1} more" if len(report.problems) > 1 else ""
        raise VerificationError(
            f"{job.artifact} is not good: {report.problems[0]}{more}", f"see gemmaq verify {job.artifact}"
        )
    return report.files


_RUNTIMES: dict[str, Callable[[_Job], _Done]] = {"ollama": _ollama, "lmstudio": _lmstudio}
