"""Ollama's documented rules, said again: Modelfiles, which files a FROM names, which GGUF is a projector, model names.

As of version 0.33 (August 2026: its parser, server/create, types/model, model/renderers and model/parsers). Nothing
here is shared with gemmaq.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

COMMANDS = frozenset(
    (
        "from",
        "license",
        "template",
        "system",
        "adapter",
        "draft",
        "renderer",
        "parser",
        "parameter",
        "message",
        "requires",
    )
)
NUMBERS = {
    **dict.fromkeys(("temperature", "top_p", "min_p"), float),
    **dict.fromkeys(("top_k", "num_ctx", "seed", "draft_num_predict"), int),
}
RENDERERS = ("gemma4", "gemma4-small", "gemma4-large")
PARSERS = ("gemma4", "gemma4-no-thinking", "passthrough")
"""Those of its code for turns that may concern us; it takes any word, and fails when the model is asked."""
_STRING, _ARRAY = 8, 9
_NUMBERS = ("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?", "", "", "<Q", "<q", "<d")
"""Of the types of GGUF's metadata, by their numbers."""
_SHARD = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")


class RuleError(Exception):
    """What Ollama would say."""


@dataclass
class Modelfile:
    """What a Modelfile asks for, as the request that `ollama create` makes of it.

    Attributes:
        files: that FROM lines name.
        drafts: that DRAFT lines name.
        base: a FROM that is no path: a model's name.
    """

    files: list[Path] = field(default_factory=list)
    drafts: list[Path] = field(default_factory=list)
    base: str | None = None
    template: str | None = None
    system: str | None = None
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    licenses: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)


def commands(text: str) -> list[tuple[str, str]]:
    """(command, argument) in order; `PARAMETER stop x` gives ("stop", "x")."""
    found, at = [], 0
    while at < len(text):
        if text[at] in " \t\r\n":
            at += 1
        elif text[at] == "#":
            at = _line_end(text, at)
        else:
            word = re.compile(r"[A-Za-z]+").match(text, at)
            name = word[0].lower() if word else ""
            if name not in COMMANDS or text[at + len(name) : at + len(name) + 1] not in (" ", "\t"):
                raise RuleError(f"command must be one of {sorted(COMMANDS)}: {text[at : at + 20]!r}")
            at += len(name) + 1
            if name == "parameter":
                key = re.compile(r"\s*([A-Za-z0-9_]+)[ \t]").match(text, at)
                if key is None:
                    raise RuleError("unexpected EOF")
                name, at = key[1], key.end()
            value, at = _value(text, at)
            found.append((name, value))
    if not any(name == "from" for name, _ in found):
        raise RuleError("no FROM line")
    return found


def _line_end(text: str, at: int) -> int:
    end = re.compile(r"[\r\n]|$").search(text, at)
    return end.start() if end else len(text)


def _value(text: str, at: int) -> tuple[str, int]:
    """To the end of the line, or, where quotes are open there, to the end of a line that closes them."""
    end = at
    while True:
        end = _line_end(text, end)
        said = text[at:end].strip()
        for quotes in ('"""', '"'):
            if said.startswith(quotes):
                if len(said) >= 2 * len(quotes) and said.endswith(quotes):
                    return said[len(quotes) : -len(quotes)], end
                break
        else:
            return said, end
        if end >= len(text):
            raise RuleError("unexpected EOF")
        end += 1


def parse(text: str, folder: Path) -> Modelfile:
    """The request of a Modelfile that lies in a folder."""
    made = Modelfile()
    for name, value in commands(text):
        if name == "from":
            path = folder / value
            if path.is_dir():
                made.files += files_of(path)
            elif path.is_file():
                made.files.append(path)
            else:
                made.base = value
        elif name == "draft":
            path = folder / value
            if not path.exists():
                raise RuleError(f"stat {path}: no such file or directory")
            made.drafts += files_of(path) if path.is_dir() else [path]
        elif name in ("template", "system", "renderer", "parser"):
            setattr(made, name, value)
        elif name == "requires":
            if not re.fullmatch(r"v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", value):
                raise RuleError("requires must be a valid semver (e.g. 0.14.0)")
            made.requires = value.removeprefix("v")
        elif name == "license":
            made.licenses.append(value)
        elif name == "stop":
            made.parameters.setdefault("stop", []).append(value)
        elif name in NUMBERS:
            made.parameters[name] = NUMBERS[name](value)
        else:
            raise RuleError(f"unknown parameter '{name}'")
    if {path.resolve() for path in made.files} & {path.resolve() for path in made.drafts}:
        raise RuleError("DRAFT must not reference the same local path as FROM")
    return made


def files_of(folder: Path) -> list[Path]:
    """What `FROM folder` names: the first kind of weights there is, and the small files beside them."""
    kinds = (
        "model*.safetensors",
        "consolidated*.safetensors",
        "pytorch_model*.bin",
        "consolidated*.pth",
        "*.gguf",
        "*.bin",
    )
    kind = next((kind for kind in kinds if any(folder.glob(kind))), None)
    if kind is None:
        raise RuleError("no Modelfile or safetensors files found")
    found = sorted(folder.glob(kind))
    if kind.startswith("model"):
        found += sorted(folder.glob("*/" + kind))
    for pattern in ("*.json", "*/*.json", "chat_template.jinja", "tokenizer.model"):
        found += sorted(folder.glob(pattern))
    for path in found:
        if folder.resolve() not in path.resolve().parents:
            raise RuleError(f"insecure path: {path}")
    return found


def keys(path: Path) -> dict[str, Any]:
    """The metadata of a GGUF file, arrays left out."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise RuleError("supplied file was not in GGUF format")
        _, _, count = struct.unpack("<IQQ", file.read(20))
        found = {}
        for _ in range(count):
            name = _text(file)
            (kind,) = struct.unpack("<I", file.read(4))
            if kind == _ARRAY:
                _skip_array(file)
            else:
                found[name] = _text(file) if kind == _STRING else _number(file, kind)
    return found


def _text(file: BinaryIO) -> str:
    return file.read(int.from_bytes(file.read(8), "little")).decode()


def _number(file: BinaryIO, kind: int) -> Any:
    form = _NUMBERS[kind]
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _skip_array(file: BinaryIO) -> None:
    kind, count = struct.unpack("<IQ", file.read(12))
    if kind != _STRING:
        file.seek(count * struct.calcsize(_NUMBERS[kind]), os.SEEK_CUR)
    for _ in range(count if kind == _STRING else 0):
        file.seek(int.from_bytes(file.read(8), "little"), os.SEEK_CUR)


def is_projector(found: dict[str, Any]) -> bool:
    """By metadata, whatever the file is called."""
    architecture = found.get("general.architecture", "")

    def count(name: str) -> int:
        return int(found.get(f"{architecture}.{name}", 0))

    if found.get("general.type") in ("projector", "mmproj"):
        return True
    if not count("block_count") and count("vision.block_count"):
        return True
    sees = found.get("clip.has_vision_encoder") or found.get("clip.has_audio_encoder")
    return architecture == "clip" and not count("block_count") and bool(sees)


def hears(found: dict[str, Any]) -> bool:
    """Whether a projector gives a model the capability `audio`; every one gives `vision`."""
    return any(name.endswith("has_audio_encoder") and value for name, value in found.items())


def merged(files: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Files by name, with their metadata -> the models they make, each of one file or of all its shards in order."""
    groups: dict[tuple[str, int], dict[int, str]] = {}
    models = []
    for name, found in sorted(files.items()):
        count = int(found.get("split.count", 0))
        if count <= 1:
            models.append([name])
            continue
        said = _SHARD.match(name)
        if said is None:
            raise RuleError(f"split GGUF {name!r} must use llama.cpp split filename pattern")
        if int(said[3]) != count or int(said[2]) - 1 != int(found["split.no"]):
            raise RuleError(f"split GGUF {name!r} does not match its metadata")
        groups.setdefault((said[1], count), {})[int(said[2]) - 1] = name
    for (stem, count), shards in groups.items():
        if len(shards) != count:
            raise RuleError(f"split GGUF {stem!r} has {len(shards)} shards, expected {count}")
        models.append([shards[number] for number in range(count)])
    return models


def distance(a: str, b: str) -> int:
    """Levenshtein's, by rows."""
    row = list(range(len(b) + 1))
    for number, letter in enumerate(a, 1):
        before, row[0] = row[0], number
        for at, other in enumerate(b, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (letter != other))
    return row[-1]


def detected(jinja: str, known: dict[str, str]) -> str | None:
    """The template Ollama takes for a file's own: the nearest it knows, if it is less than 100 edits away."""
    near = {name: distance(jinja, text) for name, text in known.items() if abs(len(jinja) - len(text)) < 100}
    best = min(near, key=lambda name: near[name], default=None)
    return best if best is not None and near[best] < 100 else None


def is_name(name: str) -> bool:
    """Whether Ollama allows a model's name."""
    tag = "latest"
    if name.rfind(":") > name.rfind("/"):
        name, _, tag = name.rpartition(":")
    parts = ["registry.ollama.ai", "library", ""]
    said = name.rsplit("/", 2)
    parts[3 - len(said) :] = said
    parts[0] = parts[0].rpartition("://")[2]
    kinds = ((350, "-_.:"), (80, "-_"), (80, "-_."), (80, "-_."))
    for (limit, marks), part in zip(kinds, (*parts, tag), strict=True):
        allowed = all(letter.isascii() and (letter.isalnum() or letter in marks) for letter in part)
        if not 1 <= len(part) <= limit or not allowed or not (part[0].isalnum() or part[0] == "_"):
            return False
    return True
