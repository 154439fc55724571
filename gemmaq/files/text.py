"""Small text, JSON and Markdown files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gemmaq.errors import InputError, NotFoundError
from gemmaq.files import lfs

_MAX_BYTES = 1 << 28
_ABOUT_FILES = ("tags", "pipeline_tag", "library_name")
"""Metadata that describes the files of a repository rather than the model."""


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        NotFoundError: It is missing.
        InputError: It cannot be read, is not UTF-8, or is far too large for a text.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError("is too large to be a text file", path=path)
        text = path.read_text("utf-8")
        lfs.refuse(text[: lfs.MAX_BYTES].encode("utf-8", "replace"), path)
        return text
    except FileNotFoundError as error:
        raise NotFoundError("does not exist", path=path) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8", path=path) from error


def read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """The object in a JSON file, or `default` if one is given and the file is missing.

    Raises:
        NotFoundError: It is missing.
        InputError: It is not JSON, or not an object.
    """
    if default is not None and not path.exists():
        return default
    text = read_text(path)
    try:
        value = json.loads(text)
        if (
            "\\ud" in text or "\\uD" in text
        ):  # escapes may spell half a surrogate pair, which no file can be written with
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not valid JSON: {error}", path=path) from error
    if not isinstance(value, dict):
        raise InputError("does not hold a JSON object", path=path)
    return value


def read_list(path: Path) -> list[dict[str, Any]]:
    """The objects in the list of a JSON file; empty if the file is missing.

    Raises:
        InputError: It is not JSON, or no list of objects.
    """
    if not path.exists():
        return []
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not valid JSON: {error}", path=path) from error
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError("does not hold a list of JSON objects", path=path)
    return value


def read_card(path: Path) -> dict[str, Any]:
    """The YAML front matter of a model card; empty if there is none or it is not YAML.

    From a card that gemmaq wrote, only metadata of the model are taken, not those of its files.
    """
    if not path.is_file():
        return {}
    text = read_text(path)
    if not text.startswith("---"):
        return {}
    import yaml

    try:
        value = yaml.safe_load(text.split("---", 2)[1])
    except (yaml.YAMLError, ValueError, IndexError, RecursionError):  # ValueError: a date of month 13
        return {}
    if not isinstance(value, dict):
        return {}
    ours = value.get("quantized_by") == "gemmaq"
    return {key: part for key, part in value.items() if not (ours and key in _ABOUT_FILES)}
