"""What lies beside the weights of an artifact, written when they are: one line of MAKERS for each file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gemmaq.artifact import card, modelfile, origin, params, provenance, sums
from gemmaq.artifact.outcomes import Tally
from gemmaq.artifact.provenance import Listed
from gemmaq.checkpoint import Checkpoint
from gemmaq.convert.hashing import Beside
from gemmaq.convert.jobs import Artifact, Job
from gemmaq.convert.outputs import Watch
from gemmaq.convert.write import Finish
from gemmaq.files.names import is_mmproj
from gemmaq.planning.request import Request


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact whose weights are written.

    Attributes:
        checkpoint: the source.
        origin: where that comes from.
        digests: of the source's files, in their order.
        request: what was asked for.
        job: what was written.
        tally: what became of it.
        folder: where the artifact lies for now.
        files: of it so far, with their digests.
    """

    checkpoint: Checkpoint
    origin: origin.Origin
    digests: tuple[str, ...]
    request: Request
    job: Job
    tally: Tally
    folder: Path
    files: tuple[Listed, ...]

    @property
    def weights(self) -> tuple[Listed, ...]:
        """The files that hold tensors."""
        names = {file.name for file in self.job.artifact.files if file.placements}
        return tuple(file for file in self.files if file.path in names)


Maker = Callable[[Made], bytes | None]
"""The content of a file, None if the artifact is to have no such file."""


def _modelfile(made: Made) -> bytes | None:
    names = [file.path for file in made.weights]
    if made.job.plan.format != "gguf":
        return None
    seen = next((name for name in names if is_mmproj(name)), None)
    return modelfile.text(made.checkpoint, [name for name in names if name != seen], seen).encode()


def _params(made: Made) -> bytes | None:
    return params.text(made.checkpoint) if made.job.plan.format == "gguf" else None


def _provenance(made: Made) -> bytes:
    return provenance.document(made.origin, made.digests, made.request, made.job, made.tally, made.weights)


def _card(made: Made) -> bytes:
    model = card.of_job(made.job, made.checkpoint, made.origin.repo, [file.path for file in made.files])
    return card.text(None, [model], sorted((file.path, file.size, file.sha256) for file in made.files)).encode()


MAKERS: tuple[tuple[str, Maker], ...] = (
    (modelfile.FILE, _modelfile),
    (params.NAME, _params),
    (provenance.NAME, _provenance),
    (card.NAME, _card),
)
"""File and what makes it, in the order they are made: each sees those before it, the card all of them.

SHA256SUMS is written after the last.
"""


@dataclass(frozen=True, slots=True)
class Finisher:
    """What `convert.write` is to be given."""

    finish: Finish
    watch: Watch


@contextmanager
def finisher(checkpoint: Checkpoint, request: Request, jobs: Sequence[Job]) -> Iterator[Finisher]:
    """Begin to make the digests of a source that are not on record, and be ready to finish what is made of it.

    Args:
        checkpoint: the source.
        request: what was asked for.
        jobs: that will be written.

    Raises:
        InputError: a file of the source cannot be read.
    """
    found = origin.of(checkpoint, jobs)
    by_artifact = {id(job.artifact): job for job in jobs}
    with Beside() as beside:
        known = [(file.record and file.record.sha256) or beside.start(file.path) for file in found.files]

        def finish(artifact: Artifact, folder: Path, tally: Tally) -> None:
            digests = tuple(digest if isinstance(digest, str) else digest.result() for digest in known)
            files = tuple(Listed(f.name, f.size, beside.written(folder / f.name)) for f in artifact.files)
            job = by_artifact[id(artifact)]
            for name, make in MAKERS:
                content = make(Made(checkpoint, found, digests, request, job, tally, folder, files))
                if content is not None:
                    files = (*files, _write(folder, name, content))
            _write(folder, sums.NAME, sums.text({file.path: file.sha256 for file in files}))

        yield Finisher(finish, beside.watch)


def _write(folder: Path, name: str, content: bytes) -> Listed:
    with (folder / name).open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Listed(name, len(content), hashlib.sha256(content).hexdigest())
