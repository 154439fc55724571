"""A runtime of one file: it copies the tensors of an artifact into a folder, and says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gemmaq.errors import UsageError
from gemmaq.progress import Progress, ProgressCallback
from gemmaq.runtimes import Installation, Options, Planner
from gemmaq.runtimes.artifact import Artifact


def prepare(options: Options) -> Planner:
    if options.dest is None:
        raise UsageError("the toy has no folder of its own", "name one with --dest")
    folder = options.dest / (options.name or "toy")

    def plan(artifact: Artifact, digests: Mapping[str, str]) -> Installation:
        files = artifact.tensor_files
        return Installation(
            title=f"{artifact.name} to {folder}",
            size=sum(path.stat().st_size for path in files),
            result=str(folder),
            next_step=f"toy run {folder.name}",
            files=tuple(path.name for path in files),
            report={"files": {path.name: digests.get(path.name) for path in files}, "copied": 0},
            run=lambda progress, say: run(files, folder, progress, say),
        )

    return plan


def run(
    files: tuple[Path, ...], folder: Path, progress: ProgressCallback, say: Callable[[str], None]
) -> dict[str, Any]:
    folder.mkdir(parents=True)
    for path in files:
        shutil.copy(path, folder)
        progress(Progress("copying", path.stat().st_size, path.stat().st_size, "bytes", item=path.name))
    say("the toy is ready")
    return {"copied": len(files)}
