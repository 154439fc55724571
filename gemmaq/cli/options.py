"""Parts that several commands share: opening sources, counting workers."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from gemmaq.cli import console

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.progress import ProgressCallback
    from gemmaq.sources.pull import Download


def opened(source: str, dry_run: bool, quiet: bool) -> Checkpoint:
    """Open a source; a repository is downloaded first, or for a dry run only the headers of its files are."""
    from gemmaq.sources.open import open_source, open_with_weights

    if dry_run:
        return open_source(source, tokenizer=True)
    return open_with_weights(source, lambda files: download_bar(files, quiet=quiet))


def download_bar(files: Download, *, quiet: bool) -> AbstractContextManager[ProgressCallback]:
    """Show the progress of a download."""
    what = f"{len(files.files)} files, {console.size(files.size)}"
    what += f", {console.size(files.missing_size)} to download" if files.missing else ", all cached"
    listing = files.listing
    return console.progress(f"{listing.ref} at {listing.commit[:12]}: {what}", quiet, files.missing_size)


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
