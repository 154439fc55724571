"""What several commands share: their sources and workers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint


def opened(source: str, dry_run: bool, quiet: bool) -> Checkpoint:
    """The source, fetched first if it is a repository; of one that nothing is made of, only what sizes need."""
    from gemmaq.cli.pull import fetch
    from gemmaq.sources.names import repository
    from gemmaq.sources.open import open_snapshot, open_source

    ref = repository(source)
    if ref is None or dry_run:
        return open_source(source, tokenizer=True)
    fetch(ref, quiet)
    return open_snapshot(ref)


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
