"""Handing a GGUF artifact to a running Ollama: the files it does not have, by their digests, then the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemmaq.artifact import modelfile
from gemmaq.artifact.digests import of_files
from gemmaq.artifact.modelfile import Settings
from gemmaq.errors import InputError, OutputError, UsageError
from gemmaq.models.identity import identify
from gemmaq.progress import ProgressCallback
from gemmaq.runtimes import Model, ollama_api
from gemmaq.runtimes.ollama_api import Server

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Found:
    """A server that answers: where, and its version."""

    address: Server
    version: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that the model is made of.

    Attributes:
        path: where it lies.
        size: bytes.
        digest: `sha256:` and the hex.
        present: whether the server has it.
    """

    path: Path
    size: int
    digest: str
    present: bool


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done.

    Attributes:
        server: where.
        name: of the model.
        replaces: whether the server has a model of that name.
        files: what the model is made of.
        settings: how it is to be run.
    """

    server: Server
    name: str
    replaces: bool
    files: tuple[Path, ...]
    settings: Settings


def find() -> Found:
    """The server that OLLAMA_HOST names, or the one of this machine.

    Raises:
        NetworkError: there is none.
    """
    address = ollama_api.server()
    return Found(address, ollama_api.version(address))


def order(server: Found, model: Model, name: str | None, force: bool) -> Order:
    """What handing a model over takes; the server is asked, and told nothing.

    Args:
        server: from `find`.
        model: the artifact.
        name: what it is to be called, None for a name made of its own.
        force: whether a model of that name may be replaced.

    Raises:
        InputError: no GGUF artifact, or one that this Ollama is too old for.
        UsageError: Ollama allows no such name.
        OutputError: the server has a model of that name.
    """
    if model.container != "gguf":
        raise InputError(
            f"{model.folder} is no GGUF artifact, and Ollama takes no other", f"make one: {model.conversion('gguf')}"
        )
    name = check_name(name) if name is not None else default_name(model)
    wanted = modelfile.settings(model.checkpoint, len(model.weights), model.projector is not None)
    _check_version(server, wanted.requires)
    replaces = ollama_api.exists(server.address, name)
    if replaces and not force:
        raise OutputError(
            f"Ollama at {server.address} has a model {name}", "choose another --name, or replace it with --force"
        )
    return Order(server.address, name, replaces, model.files, wanted)


def uploads(wanted: Order, digests: Mapping[str, str]) -> tuple[Upload, ...]:
    """The files, and which of them the server has.

    Args:
        wanted: from `order`.
        digests: SHA-256 of files in hex, by name; those that are missing are made.

    Raises:
        GemmaqError: the server cannot be asked.
    """
    more = of_files({path.name: path for path in wanted.files if path.name not in digests})
    every = {**digests, **more}
    named = [(path, f"sha256:{every[path.name]}") for path in wanted.files]
    return tuple(
        Upload(path, path.stat().st_size, digest, ollama_api.has_blob(wanted.server, digest)) for path, digest in named
    )


def request(wanted: Order, files: Sequence[Upload]) -> dict[str, Any]:
    """The fields of /api/create that make the model of files the server has."""
    how = wanted.settings
    optional = {"template": how.template, "requires": how.requires}
    return {
        "model": wanted.name,
        "files": {upload.path.name: upload.digest for upload in files},
        "parameters": dict(how.parameters),
        "license": [how.license],
        **{key: value for key, value in optional.items() if value is not None},
    }


def run(wanted: Order, files: Sequence[Upload], progress: ProgressCallback, told: Callable[[str], None]) -> None:
    """Send what is missing, then have the model made; until the very end a model of that name stays what it was.

    Args:
        wanted: from `order`.
        files: from `uploads`.
        progress: of the files that are sent.
        told: called with what the server says it is doing.

    Raises:
        GemmaqError: it refuses, or the connection is lost; what it has already need not be sent again.
    """
    for upload in files:
        if not upload.present:
            ollama_api.send_blob(wanted.server, upload.digest, upload.path, progress)
    ollama_api.create(wanted.server, request(wanted, files), told)


def default_name(model: Model) -> str:
    """`gemma-3-4b-it-qat:q4_0` for gemma-3-4b-it-qat-Q4_0.gguf."""
    stem, label = identify(model.name).stem, model.label
    stem = re.sub(rf"[-_.]{re.escape(label)}$", "", stem, flags=re.IGNORECASE)
    return check_name(f"{_plain(stem)}:{_plain(label)}")


def _plain(text: str) -> str:
    """A text as Ollama allows it in a name."""
    return (re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-.") or "model")[:80]


def check_name(name: str) -> str:
    """The name, if Ollama allows it: [host/][namespace/]model[:tag].

    Raises:
        UsageError: it does not.
    """
    rest, colon, tag = name.rpartition(":") if name.rfind(":") > name.rfind("/") else (name, "", "")
    parts = rest.split("/", 2)
    kinds = {1: (_PART,), 2: (_NAMESPACE, _PART), 3: (_HOST, _NAMESPACE, _PART)}[len(parts)]
    allowed = all(kind.fullmatch(part) for kind, part in zip(kinds, parts, strict=True))
    if not allowed or (colon and not _PART.fullmatch(tag)):
        raise UsageError(
            f"Ollama allows no model name {name!r}",
            "write model:tag or namespace/model:tag, of letters, digits, '-', '_' and '.'",
        )
    return name


def _check_version(server: Found, requires: str | None) -> None:
    """Refuse an Ollama that would make a model of it which does not work.

    A version of another form, and the 0.0.0 of a build of one's own, say nothing and pass.

    Raises:
        InputError: it is too old.
    """
    has, wants = (_VERSION.match(text or "") for text in (server.version, requires))
    if has is None or wants is None or has.group(1, 2, 3) == ("0", "0", "0"):
        return
    if tuple(map(int, has.groups())) < tuple(map(int, wants.groups())):
        raise InputError(
            f"Ollama at {server.address} is version {server.version}, this artifact needs {requires}", "update Ollama"
        )
