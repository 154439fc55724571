"""Origins and digests of a source, and of drafter and adapter beside it, while something else goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from gemmaq.artifact import origin
from gemmaq.artifact.origin import Origin
from gemmaq.artifact.record import Source
from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.convert.hashing import BackgroundHasher, SourceDigests
from gemmaq.planning.plan import Plan

_Digests = tuple[str | Future[str] | None, ...]
Sources = tuple[Source, Source | None, Source | None]
"""A source, its drafter, and the adapter that is merged into it; None for what there is not."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Origins whose files are being hashed: of the source, of its drafter and of the adapter, None for none."""

    hasher: BackgroundHasher
    model: tuple[Origin, _Digests]
    drafter: tuple[Origin, _Digests] | None
    adapter: tuple[Origin, _Digests] | None

    @classmethod
    def start(
        cls,
        hasher: BackgroundHasher,
        checkpoint: Checkpoint,
        plans: Sequence[Plan],
        tensors: Sequence[Tensor] | None = None,
    ) -> Self:
        """Start to hash the files whose digests are not on record; those that are being hashed already go on.

        Args:
            hasher: hashes them.
            checkpoint: the source.
            plans: say which tensors are read.
            tensors: tensors of the source that are read, if not all are in the plans.

        Raises:
            InputError: a file cannot be read.
        """
        own = tensors if tensors is not None else [planned.source for plan in plans for planned in plan.own]
        read = [planned.source for plan in plans if plan.drafter is not None for planned in plan.drafter.own]
        drafter = origin.of(checkpoint.drafter, read) if checkpoint.drafter is not None and read else None
        adapter = origin.of_adapter(checkpoint)
        return cls(
            hasher,
            _started(hasher, origin.of(checkpoint, own)),
            _started(hasher, drafter) if drafter is not None else None,
            _started(hasher, adapter) if adapter is not None else None,
        )

    def result(self) -> Sources:
        """All digests, as soon as they are there.

        Only files with weights are read to the end; others may change once they were hashed.

        Raises:
            InputError: a file cannot be read, or one with weights changed meanwhile.
        """
        found = (
            _source(self.model),
            _source(self.drafter) if self.drafter is not None else None,
            _source(self.adapter) if self.adapter is not None else None,
        )
        origins = [source.origin for source in found if source is not None]
        self.hasher.check_unchanged(file.path for origin in origins for file in origin.files[: origin.weights])
        return found


@contextmanager
def hashing(checkpoint: Checkpoint, plans: Sequence[Plan], sources: SourceDigests) -> Iterator[BackgroundHasher]:
    """A hasher that has started with the files of a source; leaving the context stops it; raises as `Pending.start`."""
    with BackgroundHasher(sources) as hasher:
        Pending.start(hasher, checkpoint, plans)
        yield hasher


def _started(hasher: BackgroundHasher, of: Origin) -> tuple[Origin, _Digests]:
    return of, tuple(map(hasher.of_source, of.files))


def _source(pending: tuple[Origin, _Digests]) -> Source:
    digests = tuple(digest.result() if isinstance(digest, Future) else digest for digest in pending[1])
    return Source(pending[0], digests)
