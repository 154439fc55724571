"""Side files of an artifact, made when its weights are written: an entry of MAKERS for each file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemmaq.artifact import card, modelfile, provenance, record
from gemmaq.artifact.description import Model, of_plan, of_record, size
from gemmaq.artifact.outcomes import OutcomeCounter
from gemmaq.artifact.provenance import Listed
from gemmaq.artifact.record import Source
from gemmaq.checkpoint import Checkpoint
from gemmaq.convert.hashing import BackgroundHasher
from gemmaq.convert.layout import Artifact, Variant
from gemmaq.convert.memory_table import MEMORY
from gemmaq.convert.outputs import Watch
from gemmaq.convert.source_digests import Pending
from gemmaq.convert.write import Finish
from gemmaq.files import sums
from gemmaq.files.names import parts
from gemmaq.planning.containers import CONTAINERS


@dataclass(frozen=True, slots=True)
class Written:
    """An artifact whose weights are written.

    Attributes:
        checkpoint: the source.
        source: origin and digests of the source.
        drafter: the same of the drafter that is written beside the model, None for none.
        adapter: the same of the adapter that is merged into the source, None for none.
        artifact: plans and layout.
        outcomes: outcome of each tensor.
        files: files of the artifact so far, with their digests.
    """

    checkpoint: Checkpoint
    source: Source
    drafter: Source | None
    adapter: Source | None
    artifact: Artifact
    outcomes: OutcomeCounter
    files: tuple[Listed, ...]

    @property
    def container(self) -> str:
        """Name of the container."""
        return self.artifact.container.FORMAT.name

    def weights(self, variant: Variant) -> tuple[Listed, ...]:
        """The files that hold tensors of a model."""
        names = {file.name for file in variant.files if file.placements}
        return tuple(file for file in self.files if file.path in names)

    def description(self, variant: Variant) -> Model:
        """A model as its card describes it."""
        own = {file.path for file in self.weights(variant)}
        others = {file.path for other in self.artifact.variants for file in self.weights(other)} - own
        names = [file.path for file in self.files if file.path not in others]
        return of_plan(variant.plan, self.checkpoint, repo=self.source.origin.repo, files=names)


Maker = Callable[[Written], bytes | None]
"""Returns the content of a file, None if the artifact has no such file."""


def settings(checkpoint: Checkpoint, container: str, weights: Iterable[str]) -> Mapping[str, bytes]:
    """Files that tell Ollama how to run the model of an artifact: name -> content.

    Args:
        checkpoint: the source.
        container: name of the container.
        weights: names of the files that hold tensors.

    Raises:
        InputError: the tokenizer is unusable.
    """
    if not CONTAINERS[container].ollama:
        return {}
    params = modelfile.params(checkpoint)
    files = {} if params is None else {modelfile.PARAMS_FILE: params}
    if not checkpoint.family.drafts:
        files[modelfile.FILE] = modelfile.text(checkpoint, parts(weights)).encode()
    return files


def _setting(name: str) -> Maker:
    def make(written: Written) -> bytes | None:
        names = [file.path for file in written.weights(written.artifact.variants[0])]
        return settings(written.checkpoint, written.container, names).get(name)

    return make


def _entries(written: Written) -> list[dict[str, Any]]:
    """Entries of all models in gemmaq.json."""
    entries = []
    for variant in written.artifact.variants:
        drafter = written.drafter if variant.plan.drafter is not None else None
        figures, weights = size(written.description(variant)), written.weights(variant)
        entries.append(
            record.entry(
                record.Record(
                    written.source,
                    drafter,
                    variant.plan,
                    written.outcomes,
                    weights,
                    figures,
                    record.merged(written.adapter, written.checkpoint),
                )
            )
        )
    return entries


def _provenance(written: Written) -> bytes:
    return record.text(written.container, _entries(written))


def _card(written: Written) -> bytes:
    records = provenance.parse(json.loads(_provenance(written)), provenance.NAME)
    models = [
        of_record(entry, model, model.files)
        for entry, model in zip(records, map(written.description, written.artifact.variants), strict=True)
    ]
    files = sorted((file.path, file.size, file.sha256) for file in written.files)
    return card.text(None, models, files, memory=MEMORY).encode()


MAKERS: tuple[tuple[str, Maker], ...] = (
    (modelfile.FILE, _setting(modelfile.FILE)),
    (modelfile.PARAMS_FILE, _setting(modelfile.PARAMS_FILE)),
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


def finisher(
    checkpoint: Checkpoint,
    artifacts: Sequence[Artifact],
    hasher: BackgroundHasher,
    extra_files: Callable[[], Mapping[str, bytes]] = no_extra_files,
) -> Finisher:
    """Get ready to add the side files; files of the source that are not being hashed yet are started.

    Args:
        checkpoint: the source.
        artifacts: will be written.
        hasher: hashes the files of the source, and those of the artifacts.
        extra_files: called when the weights are written; name -> content of more files for each artifact.

    Raises:
        InputError: a file of the source cannot be read.
    """
    plans = [plan for artifact in artifacts for plan in artifact.plans]
    pending = Pending.start(hasher, checkpoint, plans)

    def finish(artifact: Artifact, folder: Path, outcomes: OutcomeCounter) -> None:
        source, drafter, adapter = pending.result()
        files = tuple(Listed(f.name, f.size, hasher.written(folder / f.name)) for f in artifact.files)
        for name, make in MAKERS:
            content = make(Written(checkpoint, source, drafter, adapter, artifact, outcomes, files))
            if content is not None:
                files = (*files, _write(folder, name, content))
        files = (*files, *(_write(folder, name, content) for name, content in extra_files().items()))
        _write(folder, sums.NAME, sums.text({file.path: file.sha256 for file in files}))

    return Finisher(finish, hasher.watch)


def _write(folder: Path, name: str, content: bytes) -> Listed:
    with (folder / name).open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Listed(name, len(content), hashlib.sha256(content).hexdigest())
