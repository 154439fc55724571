"""`gemmaq pull`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import console
from gemmaq.cli.console import Output
from gemmaq.cli.options import Json, WeightFile, check_new, download_bar, new_folder, quiet_option
from gemmaq.errors import UsageError
from gemmaq.models.families import published_repositories

if TYPE_CHECKING:
    from gemmaq.sources.pull import Download


def pull(
    *,
    repo: Annotated[str, typer.Argument(metavar="REPO[@REV]", help="org/name, org/name@revision, or org/name:Q4_0.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", parser=new_folder, help="Output folder. Default: the Hub's cache."
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Download only matching files. Can be repeated. Default: one model's files."),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Skip matching files.")] = None,
    weights: WeightFile = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only the cache, like HF_HUB_OFFLINE=1.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing DIR.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be downloaded.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the folder")] = False,
) -> None:
    """Download a model from the Hugging Face Hub.

    Only files that a conversion needs are downloaded. Their digests are checked, and an interrupted download continues.
    """
    from gemmaq.files.atomic import check_output, staging
    from gemmaq.files.replacing import check_download
    from gemmaq.hub import client, parse
    from gemmaq.sources import pull
    from gemmaq.sources.companions import ALL

    shown = Output("pull", as_json, quiet)
    ref = parse(repo)
    if ref is None:
        meant = published_repositories(repo)
        hint = f"did you mean {' or '.join(meant)}?" if meant else "write org/name or org/name@revision"
        raise UsageError(f"{repo!r} is not a valid repository name", hint)
    check_new(output, force)
    if offline:
        client.set_offline()
    console.waiting.doing(f"asking the Hub for {ref}")
    files = pull.plan(ref, replace(ALL, weights=weights), include=include or (), exclude=exclude or ())
    for note in files.notes:
        console.note(note)
    if output is not None:
        check_output(output, 0, inputs=(), force=force, check=check_download)
    if dry_run:
        shown.emit(lambda: _document(files), essential=tuple, show=lambda: _show_plan(files))
        return
    with download_bar(files, quiet=shown.silent) as progress:
        folder, received = pull.download(files, progress)
    if output is not None:
        with staging(output, force, check_download) as stage:
            pull.copy(folder, files, stage)
        folder = output

    def show() -> None:
        console.out(str(folder))
        console.say(f"commit {files.listing.commit}, {console.size(received)} downloaded")

    shown.emit(
        lambda: _document(files) | {"path": str(folder), "fetched_bytes": received},
        essential=lambda: [str(folder)],
        show=show,
        made=True,
    )


def _show_plan(files: Download) -> None:
    rows = [(file.path, f"{file.size:,}", "to download" if file in files.missing else "cached") for file in files.files]
    console.table(f"{files.listing.ref} at {files.listing.commit}", ("file", "bytes", ""), rows, fold=True)
    console.out(f"{console.size(files.missing_size)} of {console.size(files.size)} to download")


def _document(files: Download) -> dict[str, Any]:
    """The JSON object of a plan."""
    return {
        "repo": files.listing.ref.repo,
        "revision": files.listing.ref.revision or "main",
        "commit": files.listing.commit,
        "files": [
            {"path": file.path, "bytes": file.size, "sha256": file.sha256, "cached": file not in files.missing}
            for file in files.files
        ],
        "bytes": files.size,
        "missing_bytes": files.missing_size,
    }
