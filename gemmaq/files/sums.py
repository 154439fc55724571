"""SHA256SUMS, the list that `sha256sum -c` reads: sorted lines of a digest, two spaces and a file name.

Source of the format: the manual of GNU coreutils, sha256sum. A name with a line break or a backslash is escaped, and
its line begins with a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from gemmaq.errors import InputError, NotFoundError
from gemmaq.files.whole import read_bytes

NAME = "SHA256SUMS"

_LINE = re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9a-f]{64}) [ *](?P<name>.+)")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_MAX_BYTES = 1 << 26


def text(digests: Mapping[str, str]) -> bytes:
    """Content of the list, from path within the folder -> SHA-256 in hex."""
    return "".join(_line(name, digests[name]) for name in sorted(digests)).encode()


def _line(name: str, digest: str) -> str:
    spelled = "".join(_ESCAPES.get(letter, letter) for letter in name)
    return f"{'' if spelled == name else chr(92)}{digest}  {spelled}\n"


def parse(data: bytes, where: str) -> dict[str, str]:
    """Read a list: path -> digest.

    Args:
        data: Content of the list.
        where: Name of the list in errors.

    Raises:
        InputError: A line is not in the format of sha256sum, or a file is listed twice.
    """
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8", path=where) from error
    if lines.pop():
        raise InputError("is cut short: its last line is incomplete", path=where)
    digests: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        entry = _LINE.fullmatch(line)
        if entry is None:
            raise InputError(f"is not in the format of sha256sum: {line!r:.80}", path=f"{where}, line {number}")
        name = entry["name"]
        if entry["escaped"]:
            name = re.sub(r"\\([\\nr])", lambda match: {"\\": "\\", "n": "\n", "r": "\r"}[match[1]], name)
        if name in digests:
            raise InputError(f"lists {name} twice", path=where)
        digests[name] = entry["digest"]
    return digests


def read(folder: Path) -> dict[str, str] | None:
    """The list of a folder, None if it has none.

    Raises:
        InputError: It cannot be read.
    """
    path = folder / NAME
    try:
        return parse(read_bytes(path, _MAX_BYTES), str(path))
    except NotFoundError:
        return None
