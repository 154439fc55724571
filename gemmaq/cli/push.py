"""`gemmaq push`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import console
from gemmaq.cli.console import Output
from gemmaq.cli.options import Json, quiet_option
from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from gemmaq.artifact.publish import Entry
    from gemmaq.hub import Ref


def push(
    *,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Artifact that gemmaq convert made.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="org/name; created if it does not exist.")],
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch, created if missing. Default: main.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a new repository as private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be uploaded.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the commit's page")] = False,
) -> None:
    """Publish an artifact on the Hugging Face Hub.

    A model card, checksums and settings for Ollama are added where DIR lacks them; a README.md or params file of your
    own is published as it is. Files that the repository has already are not uploaded again.
    """
    from gemmaq.artifact import push
    from gemmaq.artifact.publish import entries
    from gemmaq.convert.memory_table import memory_table
    from gemmaq.hub import Ref, parse

    named = parse(repo)
    if named is None or named.part or named.revision:
        raise UsageError(f"{repo!r} is not a valid repository name", "write org/name, and the branch with --revision")
    ref = Ref(named.repo, revision)
    shown = Output("push", as_json, quiet)
    with console.progress(f"reading {folder}", shown.silent or dry_run) as progress:
        files = entries(folder, ref.repo, progress, memory=memory_table)
    missing = push.missing(ref, files)
    page = commit = None
    if missing and not dry_run:
        shown.say(f"uploading {len(missing)} files, {console.size(sum(entry.size for entry in missing))}")
        commit, page = push.send(ref, missing, private=private, bars=sys.stderr.isatty() and not shown.silent)

    def show() -> None:
        if dry_run:
            rows = [
                (file.path, f"{file.size:,}", "to upload" if file in missing else "already there") for file in files
            ]
            console.table(f"{ref.repo}, {ref.revision or 'main'}", ("file", "bytes", ""), rows)
        elif page is not None:
            console.out(page)
        else:
            console.say(f"{ref.repo} has all files already, nothing was uploaded")

    shown.emit(
        lambda: _document(ref, files, missing, commit=commit, page=page, dry_run=dry_run),
        essential=lambda: [page] if page else [],
        show=show,
    )


def _document(
    ref: Ref,
    files: Sequence[Entry],
    missing: Sequence[Entry],
    *,
    commit: str | None,
    page: str | None,
    dry_run: bool,
) -> dict[str, Any]:
    """The JSON object of a push."""
    paths = {entry.path for entry in missing}
    rows = [
        {"path": entry.path, "bytes": entry.size, "sha256": entry.sha256, "sent": entry.path in paths and not dry_run}
        | ({"missing": entry.path in paths} if dry_run else {})
        for entry in files
    ]
    about = {"repo": ref.repo, "revision": ref.revision or "main", "commit": commit, "url": page}
    return about | {"files": rows}
