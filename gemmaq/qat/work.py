"""The work folder of a training, beside its output: saved states, trained layers, samples and dithered weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from gemmaq.errors import OutputError

if TYPE_CHECKING:
    from gemmaq.inference.distributed import ProcessGroup
    from gemmaq.qat.job import TrainingJob

_PREFIXES = ("step-", "next.partial", "teacher-samples.", "layer-", "dithered-")
"""Beginnings of all names that training writes in its work folder."""
_RESUMABLE = ("step-*", "layer-*.safetensors", "teacher-samples.*")
"""Files and folders that a later run can continue from."""


def folder_of(out: Path) -> Path:
    """The work folder of an output folder."""
    out = Path(os.path.abspath(out))
    return out.with_name(f"{out.name}.work")


def check_output(job: TrainingJob) -> None:
    """Fail early where the output cannot be written.

    Raises:
        OutputError: it exists already, or does not fit on the disk.
    """
    from gemmaq.files import atomic

    atomic.check_output(job.out, 2 * job.source.parameters, inputs=job.source.files, force=job.force)
    work = folder_of(job.out)
    if work.exists() and not (job.resume or job.force) and has_state(work):
        raise OutputError(
            "holds an unfinished training", "--resume continues it, --force discards it and begins anew", path=work
        )


def prepare(job: TrainingJob, group: ProcessGroup) -> Path:
    """Create the work folder, or find the one to resume from.

    Raises:
        OutputError: the output or an unfinished training exists already, or the folder cannot be created.
    """
    check_output(job)
    group.barrier()
    work = folder_of(job.out)
    if group.main:
        if work.exists() and not job.resume:
            remove(work)
        try:
            work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot be created: {error.strerror}", "choose another -o", path=work) from error
    group.barrier()
    return work


def has_state(work: Path) -> bool:
    """Whether the folder holds anything that a later run can continue from."""
    return any(True for pattern in _RESUMABLE for _ in work.glob(pattern))


def remove(work: Path) -> None:
    """Remove the work folder if it holds nothing but what training wrote.

    Raises:
        OutputError: it holds something else.
    """
    for path in work.iterdir():
        if not path.name.startswith(_PREFIXES):
            raise OutputError(f"holds {path.name}, which gemmaq did not write", "choose another -o", path=work)
    shutil.rmtree(work)
