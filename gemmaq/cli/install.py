"""`gemmaq install`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from gemmaq.cli import console
from gemmaq.cli.console import Output
from gemmaq.cli.options import Json, quiet_option
from gemmaq.errors import InputError, VerificationError
from gemmaq.files.quoting import shell
from gemmaq.runtimes import RUNTIMES, Options, find, prepare


def _only(option: str) -> str:
    """Titles of the runtimes that have an option."""
    return " and ".join(runtime.title for runtime in RUNTIMES.values() if option in runtime.options)


_NAME_FORMS = ", ".join(f"{runtime.name_form} for {runtime.title}" for runtime in RUNTIMES.values())


def install(
    *,
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="Folder that gemmaq convert made, or a .gguf file.")
    ],
    runtime: Annotated[
        str, typer.Option("--runtime", metavar="RUNTIME", help=f"Runtime to install into: {' or '.join(RUNTIMES)}.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help=f"Name of the model in the runtime: {_NAME_FORMS}.")
    ] = None,
    dest: Annotated[
        Path | None,
        typer.Option("--dest", metavar="DIR", help=f"Models folder to install into. Only for {_only('dest')}."),
    ] = None,
    model_yaml: Annotated[
        bool,
        typer.Option(
            "--model-yaml",
            help="Also write a model.yaml with the memory that the model takes, and a switch for its thoughts if it "
            f"thinks. Only for {_only('model_yaml')}.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a model of that name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the model's name, or its folder")] = False,
) -> None:
    """Install an artifact into Ollama or LM Studio.

    The artifact is verified first. Ollama must be running; OLLAMA_HOST tells where.
    """
    from gemmaq.runtimes.artifact import folder_of, read_artifact

    entry = find(runtime)
    folder_of(artifact)
    shown = Output("install", as_json, quiet)
    plan = prepare(entry, Options(name, dest, model_yaml, force))
    digests = _verify(artifact, shown.silent)
    loaded = read_artifact(artifact)
    for note in loaded.checkpoint.notes:
        if not shown.silent:
            console.note(note)
    installation = plan(loaded, digests)
    for note in installation.notes:
        console.warn(note)
    report = dict(installation.report)
    if not dry_run:
        title = f"{installation.title}: {console.size(installation.size)}"
        with console.progress(title, shown.silent, installation.size) as progress:
            report |= installation.run(progress, lambda line: shown.say(f"  {line}"))

    def show() -> None:
        for line in installation.files if dry_run else [installation.next_step]:
            console.out(line)
        if dry_run:
            console.say("nothing was done (dry run)")

    shown.emit(
        lambda: {"runtime": entry.name, "artifact": str(artifact), **report},
        essential=lambda: [installation.result],
        show=show,
        made=not dry_run,
    )


def _verify(artifact: Path, quiet: bool) -> Mapping[str, str]:
    """SHA-256 of the artifact's files by name as far as SHA256SUMS lists them, once the artifact is verified.

    Raises:
        InputError: The folder holds several models.
        VerificationError: It is damaged; see `gemmaq verify`.
    """
    from gemmaq.verify.examine import examine

    with console.progress(f"verifying {artifact}", quiet) as progress:
        reports = examine(artifact, progress)
    if len(reports) > 1 and artifact.is_dir():
        raise InputError(f"holds {len(reports)} models", f"name one of them: {reports[0].path}", path=artifact)
    problems = [problem for report in reports for problem in report.problems]
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise VerificationError(
            f"failed verification: {problems[0]}{more}", f"see gemmaq verify {shell(str(artifact))}", path=artifact
        )
    return {name: digest for report in reports for name, digest in report.files.items()}
