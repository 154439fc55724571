"""What goes wrong on the fake Hub, when asked to: rules that say which answers are spoilt, how, and how often."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

KINDS = {
    "cut": "the connection closes after `after_bytes` of the body",
    "reset": "the same, with a TCP reset",
    "stall": "`after_bytes` are sent and then nothing, on an open connection; below 0: not even the status line",
    "slow": "`rate` bytes a second",
    "lost": "the request is carried out and the connection closed without an answer",
    "status": "`status` is answered, with `retry_after` seconds where that is not None",
    "redirect": "answers with a redirect to itself",
    "flip": "the byte at `offset` of the file is another",
    "changed": "another ETag, and every byte of the file from `offset` on is another",
    "truncate": "the body and its Content-Length are `by` bytes too short",
    "declare": "Content-Length is off by `by` (either sign), the body is whole",
    "size": "listings and metadata say that the file is `by` bytes larger than it is; matches `repo/file`",
    "no_range": "Range is ignored: the whole file, with status 200",
}


@dataclass
class Fault:
    """A rule: which requests it spoils, how, and how often.

    Attributes:
        match: regular expression, searched in the path of the request (the CDN's ends with the file's name).
        kind: one of `KINDS`.
        times: how many matching requests it spoils; None for all.
        skip: how many matching requests it lets pass before that.
        chance: the share of matching requests it spoils, drawn from the Hub's seeded generator.
        method: GET, HEAD, PUT, POST; None for any.
        host: "hub", "cdn", or None for both.
        hits: how many requests it has spoilt.
    """

    match: str
    kind: str
    times: int | None = 1
    skip: int = 0
    chance: float = 1.0
    method: str | None = None
    host: str | None = None
    after_bytes: int = 0
    rate: int = 100_000
    status: int = 503
    retry_after: float | None = None
    offset: int = 0
    by: int = 0
    hits: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.kind!r}: one of {', '.join(KINDS)}")


class Faults(list[Fault]):
    """The rules in force; append and clear at any time."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._random = random.Random(seed)

    def of(self, method: str, host: str, path: str) -> dict[str, Fault]:
        """The rules that spoil this request, by kind; each is counted."""
        return self._take(lambda f: f.kind != "size" and f.method in (None, method) and f.host in (None, host), path)

    def size(self, file: str, true: int) -> int:
        """What is told of the size of `repo/file`."""
        fault = self._take(lambda f: f.kind == "size", file).get("size")
        return true + fault.by if fault else true

    def _take(self, wanted: Callable[[Fault], bool], where: str) -> dict[str, Fault]:
        with self._lock:
            taken = {}
            for fault in self:
                if not wanted(fault) or not re.search(fault.match, where):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                elif (fault.times is None or fault.hits < fault.times) and self._random.random() < fault.chance:
                    fault.hits += 1
                    taken[fault.kind] = fault
            return taken


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a body: `size` bytes of a file or of bytes, from `start`."""

    source: bytes | Path
    start: int
    size: int
    inverted: bool = False


Body = list[Piece]


def piece(source: bytes | Path, start: int, stop: int) -> Body:
    """One piece, or none where it would be empty."""
    return [Piece(source, start, stop - start)] if stop > start else []


def size_of(body: Body) -> int:
    """Bytes."""
    return sum(part.size for part in body)


def cut(body: Body, size: int) -> Body:
    """The first `size` bytes."""
    kept: Body = []
    for part in body:
        take = min(part.size, size)
        size -= take
        if take > 0:
            kept.append(replace(part, size=take))
    return kept


def invert(body: Body, start: int, stop: int) -> Body:
    """With every bit of the bytes from `start` to `stop` (of the file) turned."""
    parts: Body = []
    for part in body:
        first, last = part.start, part.start + part.size
        edges = [first, min(max(start, first), last), min(max(stop, first), last), last]
        for i, turned in enumerate((False, True, False)):
            if edges[i + 1] > edges[i]:
                parts.append(Piece(part.source, edges[i], edges[i + 1] - edges[i], part.inverted ^ turned))
    return parts
