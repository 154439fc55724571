"""`gemmaq push`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemmaq.cli import console
from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from gemmaq.artifact.publish import Entry
    from gemmaq.hub import Ref


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The artifact that gemmaq convert made.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="org/name; made if it does not exist.")],
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch, made if missing. Default: main.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the commit's page.")] = False,
) -> None:
    """Publish an artifact on the Hub, with a model card, checksums and settings for Ollama.

    A README.md or params file of your own in DIR is published as it is. Files that the repository has already are not
    sent again.
    """
    from gemmaq.artifact import push
    from gemmaq.artifact.publish import entries
    from gemmaq.hub import Ref, parse

    named = parse(repo)
    if named is None or named.part or named.revision:
        raise UsageError(f"{repo!r} is not a valid repository name", "write org/name, and the branch with --revision")
    ref = Ref(named.repo, revision)
    with console.progress(f"reading {folder}", quiet or as_json or dry_run) as progress:
        wanted = entries(folder, ref.repo, progress)
    missing = push.missing(ref, wanted)
    page = commit = None
    if missing and not dry_run:
        if not (quiet or as_json):
            console.say(f"sending {len(missing)} files, {console.size(sum(entry.size for entry in missing))}")
        commit, page = push.send(ref, missing, private, sys.stderr.isatty() and not (quiet or as_json))
    _report(ref, wanted, missing, commit, page, (as_json, quiet, dry_run))


def _report(
    ref: Ref,
    wanted: Sequence[Entry],
    missing: Sequence[Entry],
    commit: str | None,
    page: str | None,
    flags: tuple[bool, bool, bool],
) -> None:
    as_json, quiet, dry_run = flags
    sent = {entry.path for entry in missing}
    if as_json:
        files = [
            {
                "path": entry.path,
                "bytes": entry.size,
                "sha256": entry.sha256,
                "sent": entry.path in sent and not dry_run,
            }
            | ({"missing": entry.path in sent} if dry_run else {})
            for entry in wanted
        ]
        about = {"repo": ref.repo, "revision": ref.revision or "main", "commit": commit, "url": page}
        console.emit_json("push", about | {"files": files})
    elif dry_run and not quiet:
        rows = [(e.path, f"{e.size:,}", "to send" if e.path in sent else "there already") for e in wanted]
        console.table(f"{ref.repo}, {ref.revision or 'main'}", ("file", "bytes", ""), rows)
    elif page is not None:
        console.out(page)
    elif not quiet and not dry_run:
        console.say(f"{ref.repo} has all of it already, nothing was sent")
