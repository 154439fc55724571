"""`gemmaq push`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import console
from gemmaq.cli.console import Output
from gemmaq.cli.options import Json, quiet_option
from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from gemmaq.artifact.push import Pushed, Target


def push(
    *,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Artifact that gemmaq convert made.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="org/name; created if it does not exist.")],
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch, created if missing. Default: main.")
    ] = None,
    subfolder: Annotated[
        str, typer.Option("--subfolder", metavar="DIR", help="Folder of the repository. Default: none.")
    ] = "",
    private: Annotated[bool, typer.Option("--private", help="Create a new repository as private.")] = False,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead of writing to the branch.")
    ] = False,
    message: Annotated[str | None, typer.Option("--message", metavar="TEXT", help="Message of the commit.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files of the same name that have another content.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be uploaded.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the commit's page")] = False,
) -> None:
    """Publish an artifact on the Hugging Face Hub.

    GGUF models in other types that the repository has stay in the card, the checksums and gemmaq.json. A model card,
    checksums and settings for Ollama are added where DIR lacks them; a README.md or params file of your own is
    published as it is. Files that the repository has already are not uploaded again.
    """
    from gemmaq.artifact.publish import read
    from gemmaq.artifact.push import Pushed, Target, look
    from gemmaq.artifact.push import push as upload
    from gemmaq.convert.memory_table import MEMORY
    from gemmaq.hub import Ref, parse

    named = parse(repo)
    if named is None or named.part or named.revision:
        raise UsageError(f"{repo!r} is not a valid repository name", "write org/name, and the branch with --revision")
    if subfolder and not re.fullmatch(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)*/?", subfolder):
        raise UsageError(f"--subfolder {subfolder!r} is not a folder of a repository", "write a/b, for example")
    target = Target(Ref(named.repo, revision), subfolder, private, message, create_pr, force)
    shown = Output("push", as_json, quiet)
    with console.progress(f"reading {folder}", shown.silent or dry_run) as progress:
        local = read(folder, progress)
    console.waiting.doing(f"asking the Hub for {target.ref}")
    merged = look(local, target, memory=MEMORY)
    for note in merged.notes:
        console.note(note)
    pushed = Pushed(merged)
    if merged.missing and not dry_run:
        size = console.size(sum(entry.size for entry in merged.missing))
        shown.say(f"uploading {len(merged.missing)} files, {size}")
        pushed = upload(local, target, memory=MEMORY, bars=sys.stderr.isatty() and not shown.silent)
    shown.emit(
        lambda: _document(target, pushed, dry_run=dry_run),
        essential=lambda: [pushed.page] if pushed.page else [],
        show=lambda: _show(target, pushed, dry_run=dry_run),
        made=pushed.page is not None,
    )


def _show(target: Target, pushed: Pushed, *, dry_run: bool) -> None:
    """Print the result."""
    merged = pushed.merged
    if dry_run:
        missing = {entry.path: "to upload" for entry in merged.missing} | dict.fromkeys(merged.replaced, "to replace")
        rows = [(e.path, f"{e.size:,}", missing.get(e.path, "already there")) for e in merged.files]
        rows += [(path, "", "stays") for path in merged.kept]
        console.table(f"{target.ref.repo}, {target.ref.revision or 'main'}", ("file", "bytes", ""), rows, fold=True)
    elif pushed.page is not None:
        console.out(pushed.page)
    else:
        console.say(f"{target.ref.repo} has all files already, nothing was uploaded")


def _document(target: Target, pushed: Pushed, *, dry_run: bool) -> dict[str, Any]:
    """The JSON object of a push."""
    merged = pushed.merged
    paths = {entry.path for entry in merged.missing}
    rows = [
        {"path": entry.path, "bytes": entry.size, "sha256": entry.sha256, "sent": entry.path in paths and not dry_run}
        | ({"missing": entry.path in paths} if dry_run else {})
        for entry in merged.files
    ]
    about: dict[str, Any] = {"repo": target.ref.repo, "revision": target.ref.revision or "main"}
    about |= {"subfolder": target.subfolder} if target.subfolder else {}
    about |= {"commit": pushed.commit, "url": pushed.page}
    return about | {"files": rows, "kept": list(merged.kept), "replaced": list(merged.replaced)}
