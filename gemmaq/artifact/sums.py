"""SHA256SUMS, the list that `sha256sum -c` reads: digest, two blanks, file; one a line, sorted.

Source of the form: the manual of GNU coreutils, sha256sum; a name with a line break or a backslash is escaped, and its
line begins with a backslash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from gemmaq.errors import InputError

NAME = "SHA256SUMS"

_LINE = re.compile(r"(?P<escaped>\\?)(?P<digest>[0-9a-f]{64}) [ *](?P<name>.+)")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_MAX_BYTES = 1 << 26


def text(digests: Mapping[str, str]) -> bytes:
    """The list of files: path within the folder -> SHA-256 in hex."""
    return "".join(_line(name, digests[name]) for name in sorted(digests)).encode()


def _line(name: str, digest: str) -> str:
    spelled = "".join(_ESCAPES.get(letter, letter) for letter in name)
    return f"{'' if spelled == name else chr(92)}{digest}  {spelled}\n"


def parse(data: bytes, where: str) -> dict[str, str]:
    """Path -> digest.

    Args:
        data: the list.
        where: what to call it in an error.

    Raises:
        InputError: a line is none of sha256sum's, or a file is listed twice.
    """
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8") from error
    if lines.pop():
        raise InputError(f"{where} is cut short: its last line has no end")
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        entry = _LINE.fullmatch(line)
        if entry is None:
            raise InputError(f"{where}, line {number}: {line!r:.80} is not what sha256sum writes")
        name = entry["name"]
        if entry["escaped"]:
            name = re.sub(r"\\([\\nr])", lambda match: {"\\": "\\", "n": "\n", "r": "\r"}[match[1]], name)
        if name in found:
            raise InputError(f"{where} lists {name} twice")
        found[name] = entry["digest"]
    return found


def read(folder: Path) -> dict[str, str] | None:
    """What the list of a folder says, None if it has none.

    Raises:
        InputError: it cannot be read.
    """
    path = folder / NAME
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is too large to be a list of files")
        return parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
