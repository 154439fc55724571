"""Chat templates of a Hugging Face folder, which may be in several files that contradict each other.

chat_template.jinja counts, as in transformers; llama.cpp's converter takes tokenizer_config.json before it. What is
written to a folder names one template only, so that every runtime takes the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemmaq.errors import InputError
from gemmaq.files.text import read_json, read_text

FILE, FOLDER, OF_PROCESSOR = "chat_template.jinja", "additional_chat_templates", "chat_template.json"
_CONFIG = "tokenizer_config.json"
_KEY = "chat_template"


@dataclass(frozen=True, slots=True)
class Templates:
    """The chat templates of a folder.

    Attributes:
        default: Jinja source, None for none.
        named: Further templates by name.
        notes: A sentence for each file whose template does not count.
        stale: Whether a file that is copied unchanged would have a runtime take another template.
    """

    default: str | None = None
    named: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stale: bool = False


def read(folder: Path, settings: Mapping[str, Any] | None = None) -> Templates:
    """The chat templates of a folder: those in files of their own, then those of tokenizer_config.json.

    chat_template.json, which only processors read, is the last.

    Args:
        folder: Where the files are.
        settings: Content of tokenizer_config.json, None if it is to be read.

    Raises:
        InputError: A file is unusable, or templates are neither a text nor a list of texts with names.
    """
    settings = read_json(folder / _CONFIG, {}) if settings is None else settings
    listed = _listed(settings.get(_KEY), folder / _CONFIG)
    of_processor = _listed(read_json(folder / OF_PROCESSOR, {}).get(_KEY), folder / OF_PROCESSOR).get("default")
    files = {"default": read_text(folder / FILE)} if (folder / FILE).is_file() else {}
    files |= {path.stem: read_text(path) for path in sorted((folder / FOLDER).glob("*.jinja"))}
    if "default" in files:
        chosen, where = files, FILE
    else:
        usual = {"default": of_processor} if of_processor is not None and "default" not in listed else {}
        chosen, where = {**usual, **listed, **files}, _CONFIG
    notes, stale = [], bool(files) and "default" in chosen and "default" not in files
    if "default" in files and listed:
        lost = [name for name in listed if listed[name] != files.get(name)]
        if lost:
            notes.append(f"{_CONFIG} has {_other(lost)} than {FILE}, which counts")
            stale = True
    default = chosen.get("default")
    if of_processor is not None and default is not None and of_processor != default:
        notes.append(f"{OF_PROCESSOR} has another chat template than {where}, which counts")
        stale = True
    named = {name: text for name, text in chosen.items() if name != "default"}
    return Templates(default, named, tuple(notes), stale)


def _other(names: list[str]) -> str:
    others = [name for name in names if name != "default"]
    if not others:
        return "another chat template"
    return f"other chat templates ({', '.join(names)})"


def _listed(value: Any, path: Path) -> dict[str, str]:
    """Templates by name: of a text, of a list of objects with `name` and `template`, or of an object of texts."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    found: dict[Any, Any] = {}
    if isinstance(value, Mapping):
        found = dict(value)
    elif isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):
        found = {entry.get("name"): entry.get("template") for entry in value}
    if (not found and value) or not all(isinstance(part, str) for pair in found.items() for part in pair):
        raise InputError("is neither a text nor a list of texts with names", path=path, key=_KEY)
    return found


def paths(folder: Path) -> dict[str, Path]:
    """Files of a folder's own that hold further templates: path within the folder -> file."""
    return {f"{FOLDER}/{path.name}": path for path in sorted((folder / FOLDER).glob("*.jinja"))}


def unambiguous(files: Mapping[str, bytes], templates: Templates) -> dict[str, bytes]:
    """The tokenizer's files of a folder, with the templates that count in them and no others.

    Args:
        files: Path within the folder -> content, as the source has it.
        templates: Its templates.
    """
    result = {name: content for name, content in files.items() if name != OF_PROCESSOR}
    if _CONFIG in result:
        settings = json.loads(result[_CONFIG])
        settings.pop(_KEY, None)
        result[_CONFIG] = (json.dumps(settings, ensure_ascii=False, indent=2) + "\n").encode()
    return result | as_files(templates.default, templates.named)


def as_files(default: str | None, named: Mapping[str, str]) -> dict[str, bytes]:
    """Chat templates as files of their own: path within the folder -> content."""
    files = {} if default is None else {FILE: default.encode()}
    return files | {f"{FOLDER}/{name}.jinja": text.encode() for name, text in spelled(named).items()}


def spelled(named: Mapping[str, str]) -> dict[str, str]:
    """Templates by names of letters, digits and underscores, as llama.cpp's converter spells them."""
    return {re.sub(r"[^A-Za-z0-9]", "_", name): text for name, text in named.items() if name}
