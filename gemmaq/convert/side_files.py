"""Side files of an artifact, made when its weights are written: an entry of MAKERS for each file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gemmaq.artifact import card, modelfile, origin, provenance, sums
from gemmaq.artifact.outcomes import OutcomeCounter
from gemmaq.artifact.provenance import Listed
from gemmaq.checkpoint import Checkpoint
from gemmaq.convert.hashing import BackgroundHasher
from gemmaq.convert.layout import Artifact
from gemmaq.convert.memory_table import memory_table
from gemmaq.convert.outputs import Watch
from gemmaq.convert.write import Finish
from gemmaq.files.names import is_mmproj
from gemmaq.planning.containers import CONTAINERS
from gemmaq.planning.request import Request


@dataclass(frozen=True, slots=True)
class Written:
    """An artifact whose weights are written.

    Attributes:
        checkpoint: the source.
        origin: origin of the source.
        digests: SHA-256 of the source's files, in their order.
        request: types, methods and containers that were asked for.
        artifact: plan and layout.
        outcomes: outcome of each tensor.
        files: files of the artifact so far, with their digests.
    """

    checkpoint: Checkpoint
    origin: origin.Origin
    digests: tuple[str, ...]
    request: Request
    artifact: Artifact
    outcomes: OutcomeCounter
    files: tuple[Listed, ...]

    @property
    def weights(self) -> tuple[Listed, ...]:
        """The files that hold tensors."""
        names = {file.name for file in self.artifact.files if file.placements}
        return tuple(file for file in self.files if file.path in names)


Maker = Callable[[Written], bytes | None]
"""Returns the content of a file, None if the artifact has no such file."""


def _modelfile(written: Written) -> bytes | None:
    if not CONTAINERS[written.artifact.plan.format].ollama:
        return None
    names = [file.path for file in written.weights]
    projector = next(filter(is_mmproj, names), None)
    return modelfile.text(written.checkpoint, [name for name in names if name != projector], projector).encode()


def _params(written: Written) -> bytes | None:
    return modelfile.params(written.checkpoint) if CONTAINERS[written.artifact.plan.format].ollama else None


def _provenance(written: Written) -> bytes:
    plan = written.artifact.plan
    record = provenance.Record(
        written.origin, written.digests, written.request, plan, written.outcomes, written.weights
    )
    return provenance.document(record)


def _card(written: Written) -> bytes:
    names = [file.path for file in written.files]
    model = card.of_plan(written.artifact.plan, written.checkpoint, repo=written.origin.repo, files=names)
    files = sorted((file.path, file.size, file.sha256) for file in written.files)
    return card.text(None, [model], files, memory=memory_table).encode()


MAKERS: tuple[tuple[str, Maker], ...] = (
    (modelfile.FILE, _modelfile),
    (modelfile.PARAMS_FILE, _params),
    (provenance.NAME, _provenance),
    (card.NAME, _card),
)
"""Name and maker of each file, in the order they are made: a maker sees the files before it, the card all of them.

SHA256SUMS is written after the last.
"""


@dataclass(frozen=True, slots=True)
class Finisher:
    """Arguments of `write.write` that complete its artifacts."""

    finish: Finish
    watch: Watch


def no_extra_files() -> Mapping[str, bytes]:
    """No files beyond those of MAKERS."""
    return {}


@contextmanager
def finisher(
    checkpoint: Checkpoint,
    request: Request,
    artifacts: Sequence[Artifact],
    extra_files: Callable[[], Mapping[str, bytes]] = no_extra_files,
) -> Iterator[Finisher]:
    """Start to hash the source's files whose digests are not on record, and get ready to add the side files.

    Args:
        checkpoint: the source.
        request: types, methods and containers that were asked for.
        artifacts: will be written.
        extra_files: called when the weights are written; name -> content of more files for each artifact.

    Raises:
        InputError: a file of the source cannot be read.
    """
    read = [planned.source for artifact in artifacts for planned in artifact.plan.everything]
    source = origin.of(checkpoint, read)
    with BackgroundHasher() as hasher:
        pending = [(file.record and file.record.sha256) or hasher.start(file.path) for file in source.files]

        def finish(artifact: Artifact, folder: Path, outcomes: OutcomeCounter) -> None:
            digests = tuple(digest if isinstance(digest, str) else digest.result() for digest in pending)
            files = tuple(Listed(f.name, f.size, hasher.written(folder / f.name)) for f in artifact.files)
            for name, make in MAKERS:
                content = make(Written(checkpoint, source, digests, request, artifact, outcomes, files))
                if content is not None:
                    files = (*files, _write(folder, name, content))
            files = (*files, *(_write(folder, name, content) for name, content in extra_files().items()))
            _write(folder, sums.NAME, sums.text({file.path: file.sha256 for file in files}))

        yield Finisher(finish, hasher.watch)


def _write(folder: Path, name: str, content: bytes) -> Listed:
    with (folder / name).open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Listed(name, len(content), hashlib.sha256(content).hexdigest())
