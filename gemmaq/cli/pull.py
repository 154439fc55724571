"""`gemmaq pull`, and the fetching that other commands do first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import console
from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from gemmaq.hub import Ref
    from gemmaq.sources.pull import Order


def pull(
    repo: Annotated[str, typer.Argument(metavar="REPO[@REV]", help="org/name, org/name@revision, or org/name:Q4_0.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder to make. Default: the Hub's cache.")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only files that match, again for more. Default: a model's."),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="But none that match.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only what is cached, as HF_HUB_OFFLINE=1.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing DIR.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the folder.")] = False,
) -> None:
    """Fetch from the Hub what a conversion needs: checked, and continued where an earlier run stopped."""
    from gemmaq.files.atomic import check_output
    from gemmaq.hub import client, parse

    ref = parse(repo)
    if ref is None:
        raise UsageError(f"{repo!r} is no repository's name", "write org/name, or org/name@revision")
    if offline:
        client.set_offline()
    order = _order(ref, include or [], exclude or [])
    if output is not None:
        check_output(output, 0, (), force)
    if dry_run:
        _report(order, None, 0, as_json, quiet)
        return
    folder, fetched = _run(order, quiet or as_json)
    if output is not None:
        folder = _copy(folder, order, output, force)
    _report(order, folder, fetched, as_json, quiet)


def fetch(ref: Ref, quiet: bool) -> None:
    """Have a repository in the cache, whole; nothing to do offline.

    Raises:
        GemmaqError: it cannot be fetched.
    """
    from gemmaq.hub import client

    if not client.is_offline():
        _run(_order(ref, [], []), quiet)


def _order(ref: Ref, include: list[str], exclude: list[str]) -> Order:
    from gemmaq.hub import client
    from gemmaq.sources import pull

    return pull.cached_order(ref, include, exclude) if client.is_offline() else pull.order(ref, include, exclude)


def _run(order: Order, quiet: bool) -> tuple[Path, int]:
    from gemmaq.sources import pull

    listed, missing = order.listed, sum(file.size for file in order.missing)
    what = f"{len(order.files)} files, {console.size(order.size)}"
    what += f", {console.size(missing)} to fetch" if missing else ", all cached"
    with console.transfers(f"{listed.ref} at {listed.commit[:12]}: {what}", missing, quiet) as progress:
        return pull.run(order, progress)


def _copy(snapshot: Path, order: Order, output: Path, force: bool) -> Path:
    from gemmaq.files.atomic import staging
    from gemmaq.sources import pull

    with staging(output, force) as stage:
        pull.copy(snapshot, order, stage)
    return output


def _report(order: Order, folder: Path | None, fetched: int, as_json: bool, quiet: bool) -> None:
    missing = {file.path for file in order.missing}
    if as_json:
        entry: dict[str, Any] = {
            "repo": order.listed.ref.repo,
            "revision": order.listed.ref.revision or "main",
            "commit": order.listed.commit,
            "files": [
                {"path": file.path, "bytes": file.size, "sha256": file.sha256, "cached": file.path not in missing}
                for file in order.files
            ],
            "bytes": order.size,
            "missing_bytes": sum(file.size for file in order.missing),
        }
        if folder is not None:
            entry |= {"path": str(folder), "fetched_bytes": fetched}
        console.emit_json("pull", entry)
    elif folder is not None:
        console.out(str(folder))
        if not quiet:
            console.say(f"commit {order.listed.commit}, {console.size(fetched)} fetched")
    elif not quiet:
        rows = [(f.path, f"{f.size:,}", "to fetch" if f.path in missing else "cached") for f in order.files]
        console.table(f"{order.listed.ref} at {order.listed.commit}", ("file", "bytes", ""), rows)
        total = sum(file.size for file in order.missing)
        console.out(f"{console.size(total)} of {console.size(order.size)} to fetch")
