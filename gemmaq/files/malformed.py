"""The guard around everything that reads files of others: what a reader stumbles over is an error of the file.

Readers check what they know can be wrong, and say so in words. What they did not think of ends here, in the same error
with the exit code of an unusable file, in place of one that looks like a bug of gemmaq.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gemmaq.errors import GemmaqError, InputError

_SLIPS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
MOST_LEVELS = 100
"""Objects and lists within each other; files of models have five, and Python's own functions fail at a thousand."""
_SHOWN = 200
"""Characters of what Python says that are shown."""


@contextmanager
def refused(path: object, kind: type[GemmaqError] = InputError, hint: str | None = None) -> Iterator[None]:
    """Turn what fails within into an error about a file.

    Args:
        path: File, folder or repository that is read.
        kind: Class of the error.
        hint: What to do next.

    Raises:
        GemmaqError: Of this class; one that the reader raised itself passes unchanged.
    """
    try:
        yield
    except GemmaqError:
        raise
    except MemoryError as error:
        raise kind("is malformed, or too large for the memory of this machine", hint, path=path) from error
    except _SLIPS as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error) or "it contradicts itself"
        raise kind(f"is malformed: {said:.{_SHOWN}}", hint, path=path) from error


def parse_json(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None) -> Any:
    """The value of a JSON document.

    Args:
        text: The document.
        pairs: What makes an object of its keys and values.

    Raises:
        ValueError: It is not JSON, not UTF-8, spells half a surrogate pair, or is nested far too deep.
    """
    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep") from error
    check_depth(value)
    if (b"\\ud" in text or b"\\uD" in text) if isinstance(text, bytes) else ("\\ud" in text or "\\uD" in text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:  # nothing can be written with it
            raise ValueError("it spells half a surrogate pair") from error
    return value


def check_depth(value: Any) -> None:
    """Refuse a value of objects and lists within each other that are nested far too deep.

    Raises:
        ValueError: It is.
    """
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [
            part
            for holder in level
            for part in (holder.values() if isinstance(holder, dict) else holder if isinstance(holder, list) else ())
            if isinstance(part, (dict, list))
        ]
        if not level:
            return
    raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
