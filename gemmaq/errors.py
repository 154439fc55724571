"""Every failure a user can cause, each with the exit code that scripts rely on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Self

_PREDICATES = frozenset(
    (
        *(
            "belongs",
            "cannot",
            "claims",
            "contradicts",
            "does",
            "ends",
            "exists",
            "has",
            "holds",
            "is",
            "lacks",
            "lies",
        ),
        *("lists", "names", "needs", "overlaps", "places", "takes", "was"),
    )
)
"""Verbs that turn what precedes them into the subject of a sentence: "model.gguf" + "is truncated"."""


class GemmaqError(Exception):
    """An error shown to the user: what is wrong and where, then what to do next.

    The sentence is put together here and nowhere else, so that a caller who knows a file under another name (in the
    cache, in a temporary folder, in a repository) changes the fields with `at` or `relative_to`, never the text.

    Attributes:
        problem: What is wrong, without the places that the fields name.
        hint: What to do next, or None.
        path: File, folder or repository, or None.
        tensor: Name of a tensor in it, or None.
        key: Name of a metadata or configuration key in it, or None.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        hint: str | None = None,
        *,
        path: object = None,
        tensor: str | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.path = None if path is None else str(path)
        self.tensor = tensor
        self.key = key

    @property
    def message(self) -> str:
        """One sentence: `model.gguf: tensor blk.0.attn_q.weight has 5 dimensions`."""
        places = [
            self.path or "",
            f"tensor {self.tensor}" if self.tensor else "",
            f"key {self.key}" if self.key else "",
        ]
        where = ": ".join(place for place in places if place)
        if not where:
            return self.problem
        return f"{where}{' ' if self.problem.partition(' ')[0] in _PREDICATES else ': '}{self.problem}"

    def __str__(self) -> str:
        return self.message

    def at(self, *, path: object = None, tensor: str | None = None, key: str | None = None) -> Self:
        """A copy with other places; those not given stay."""
        return type(self)(
            self.problem,
            self.hint,
            path=self.path if path is None else path,
            tensor=tensor or self.tensor,
            key=key or self.key,
        )

    def relative_to(self, folder: Path, name: str = "") -> Self:
        """A copy whose path, if it lies in a folder, is spelled from there: `name/inner`, or `inner` without a name."""
        if self.path is None or not PurePath(self.path).is_relative_to(folder):
            return self
        inner = PurePath(name) / PurePath(self.path).relative_to(folder)
        return self.at(path=inner) if inner.name else self


class UsageError(GemmaqError):
    """The command line asks for something that does not make sense."""

    exit_code = 2


_MOST_NEAR, _LIKE = 3, 0.65


def unknown(
    what: str, name: str, known: Iterable[str], *, meant: Mapping[str, str] | None = None, every: str | None = None
) -> UsageError:
    """The error for a name that is not one of those that are known: with the nearest ones, and with all of them.

    Args:
        what: What the name is of: `type`, `engine`.
        name: What the user wrote.
        known: Names that are known, in the order in which the error lists them.
        meant: Other ways to write them, in lower case, and the name that each means.
        every: What to say in place of the whole list where near ones are named.
    """
    listed = tuple(known)
    near = nearest(name, listed, meant or {})
    whole = f"known: {', '.join(listed)}"
    hint = f"did you mean {' or '.join(near)}? {every or whole}" if near else whole
    return UsageError(f"unknown {what} {name!r}", hint)


def nearest(name: str, known: Iterable[str], meant: Mapping[str, str] | None = None) -> list[str]:
    """The names most like another one, the best first; empty if none is like it.

    Of equal ones those that begin alike come first, then in their order.

    Args:
        name: What the user wrote.
        known: Names that are known.
        meant: Other ways to write them, in lower case, and the name that each means.
    """
    from difflib import SequenceMatcher

    wanted = name.lower()
    if meant and wanted in meant:
        return [meant[wanted]]
    likeness = {other: SequenceMatcher(None, wanted, other.lower()).ratio() for other in known}
    near = [other for other in likeness if likeness[other] >= _LIKE]
    return sorted(near, key=lambda other: (-likeness[other], other[:1].lower() != wanted[:1]))[:_MOST_NEAR]


class InputError(GemmaqError):
    """The source cannot be used: corrupt, truncated, unsupported architecture or type."""

    exit_code = 3


class UnsupportedModelError(InputError):
    """The source is a model that is known by name and cannot be converted.

    Attributes:
        tensors: Type, number of weights and bytes of every tensor by the headers; empty until they are read.
    """

    tensors: tuple[tuple[str, int, int], ...] = ()


class AuthError(GemmaqError):
    """A repository is gated or private, and the token is missing or refused."""

    exit_code = 4


class NotFoundError(GemmaqError):
    """A path, repository or file does not exist."""

    exit_code = 5


class NetworkError(GemmaqError):
    """The network failed, or is not to be used and nothing is cached."""

    exit_code = 6


class OutputError(GemmaqError):
    """The result cannot be written: it exists, there is no space, or no permission."""

    exit_code = 7


class VerificationError(GemmaqError):
    """Bytes differ from what a checksum or a record says."""

    exit_code = 8
