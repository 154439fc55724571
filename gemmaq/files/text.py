"""Small text, JSON and Markdown files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gemmaq.errors import InputError, NotFoundError
from gemmaq.files import lfs
from gemmaq.files.json_scan import is_object
from gemmaq.files.malformed import parse_json, refused
from gemmaq.files.whole import read_bytes, read_head

_MAX_VALUES = 1 << 22
"""Values in a JSON file: each takes up to a hundred bytes of memory. The tokenizer.json of Gemma has half of it."""
_MAX_FRONT, _MOST_TEXTS, _LONGEST = 1 << 18, 1000, 1000
"""Characters of a card's front matter (its YAML takes seconds to read), texts of a list and characters of a text."""
_ABOUT_FILES = ("tags", "pipeline_tag", "library_name")
"""Metadata that describes the files of a repository rather than the model."""


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        NotFoundError: It is missing.
        InputError: It cannot be read, is not UTF-8, or is far too large for a text.
    """
    data = read_bytes(path)
    lfs.refuse(data[: lfs.MAX_BYTES], path)
    try:
        return data.decode().replace("\r\n", "\n").replace("\r", "\n")
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
    value = _parsed(path)
    if not isinstance(value, dict):
        raise InputError("does not hold a JSON object", path=path)
    return value


def check_json(path: Path) -> None:
    """Refuse a file that `read_json` refuses, in less time than its values take.

    Raises:
        NotFoundError, InputError: see `read_json`.
    """
    data = read_bytes(path)
    is_large = sum(data.count(sign) for sign in b",[{") > _MAX_VALUES
    if is_large or any(surrogate in data for surrogate in (rb"\ud", rb"\uD")) or not is_object(data):
        read_json(path)


def _parsed(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        InputError: It is not JSON, or has more values than any file of a model.
    """
    text = read_text(path)
    if text.count(",") + text.count("[") + text.count("{") > _MAX_VALUES:
        raise InputError(f"has more than {_MAX_VALUES:,} values", path=path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(f"is not valid JSON: {error}", path=path) from error


def read_list(path: Path) -> list[dict[str, Any]]:
    """The objects in the list of a JSON file; empty if the file is missing.

    Raises:
        InputError: It is not JSON, or no list of objects.
    """
    if not path.exists():
        return []
    value = _parsed(path)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError("does not hold a list of JSON objects", path=path)
    return value


def read_card(path: Path) -> dict[str, Any]:
    """The texts and lists of texts in the YAML front matter of a model card; empty if there is none or it is not YAML.

    A card only describes a model, so that none makes the model unusable. Bytes that are not UTF-8 are replaced. From a
    card that gemmaq wrote, only metadata of the model are taken, not those of its files.
    """
    try:
        text = read_head(path, 4 * _MAX_FRONT).decode("utf-8", "replace").removeprefix("\ufeff")
    except (InputError, NotFoundError):
        return {}
    front = text[: _MAX_FRONT + 6].split("---", 2)
    if len(front) < 3 or front[0]:
        return {}
    import yaml

    try:
        with refused(path):  # a date of month 13, say
            value = yaml.safe_load(front[1])
    except (yaml.YAMLError, InputError):
        return {}
    if not isinstance(value, dict):
        return {}
    ours = value.get("quantized_by") == "gemmaq"
    kept = {key: _said(part) for key, part in value.items() if not (ours and key in _ABOUT_FILES)}
    return {key: part for key, part in kept.items() if part is not None}


def _said(value: Any) -> str | list[str] | None:
    """A text, or the texts of a list; None for anything else."""
    if isinstance(value, list):
        return [text for text in value[:_MOST_TEXTS] if _is_text(text)]
    return value if _is_text(value) else None


def _is_text(value: Any) -> bool:
    """Whether a value is a text that can be written; YAML spells halves of surrogate pairs, too."""
    return isinstance(value, str) and len(value) < _LONGEST and value.isprintable()
