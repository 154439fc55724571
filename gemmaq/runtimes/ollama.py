"""Ollama: upload the files of a GGUF artifact that a running server lacks, then have it create the model from them."""

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
from gemmaq.runtimes import Installation, Options, Planner, ollama_api
from gemmaq.runtimes.artifact import Artifact
from gemmaq.runtimes.ollama_api import Address

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Server:
    """A running Ollama: its address and version."""

    address: Address
    version: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of the model.

    Attributes:
        path: Path of the file.
        size: Its bytes.
        sha256: Its digest in hex.
        present: Whether the server has it already.
    """

    path: Path
    size: int
    sha256: str
    present: bool

    @property
    def digest(self) -> str:
        """The digest as Ollama writes it."""
        return f"sha256:{self.sha256}"


@dataclass(frozen=True, slots=True)
class _Model:
    """A model to create: its name, its files, the one of a drafter, and the settings that Ollama runs it with."""

    name: str
    files: tuple[Upload, ...]
    drafter: Path | None
    settings: Settings


def prepare(options: Options) -> Planner:
    """Check the name and find the server that OLLAMA_HOST names, or the one of this machine.

    Raises:
        UsageError: Ollama does not allow the name.
        NetworkError: No server answers.
    """
    if options.name is not None:
        check_name(options.name)
    address = ollama_api.address()
    server = Server(address, ollama_api.version(address))
    return lambda artifact, digests: _plan(server, options, artifact, digests=digests)


def _plan(server: Server, options: Options, artifact: Artifact, *, digests: Mapping[str, str]) -> Installation:
    """Work out which files to send; the server is only asked.

    Raises:
        InputError: The server is too old for the model.
        OutputError: The server has a model of that name.
    """
    name = options.name if options.name is not None else default_name(artifact)
    settings = modelfile.settings(artifact.checkpoint, artifact.parts)
    _check_version(server, settings.requires)
    replaces = ollama_api.exists(server.address, name)
    if replaces and not options.force:
        raise OutputError(
            f"Ollama at {server.address} has a model {name}", "choose another --name, or replace it with --force"
        )
    model = _Model(name, _uploads(server, artifact.tensor_files, digests), artifact.drafter, settings)
    return Installation(
        title=f"{name} to Ollama {server.version} at {server.address}",
        size=sum(upload.size for upload in model.files if not upload.present),
        result=name,
        next_step=f"ollama run {name}",
        files=tuple(
            f"{upload.path}  {upload.size:,} bytes, {'already there' if upload.present else 'to send'}"
            for upload in model.files
        ),
        report={
            "name": name,
            "server": str(server.address),
            "version": server.version,
            "replaces": replaces,
            "files": [
                {"path": str(upload.path), "bytes": upload.size, "sha256": upload.sha256, "present": upload.present}
                for upload in model.files
            ],
            "request": _request(model),
        },
        run=lambda progress, say: _run(server, model, progress, say=say),
        notes=(settings.remark,) if settings.remark is not None else (),
    )


def _uploads(server: Server, paths: Sequence[Path], digests: Mapping[str, str]) -> tuple[Upload, ...]:
    """The files, and which of them the server has; digests that are not known by file name are computed."""
    digests = {**digests, **of_files({path.name: path for path in paths if path.name not in digests})}
    return tuple(
        Upload(
            path,
            path.stat().st_size,
            digests[path.name],
            ollama_api.has_blob(server.address, f"sha256:{digests[path.name]}"),
        )
        for path in paths
    )


def _request(model: _Model) -> dict[str, Any]:
    """Fields of /api/create that create the model from files on the server."""
    settings = model.settings
    turns = settings.turns
    drafts = {upload.path.name: upload.digest for upload in model.files if upload.path == model.drafter}
    optional = {
        "draft_files": drafts or None,
        "template": turns.template,
        "renderer": turns.renderer,
        "parser": turns.parser,
        "requires": settings.requires,
    }
    return {
        "model": model.name,
        "files": {upload.path.name: upload.digest for upload in model.files if upload.path != model.drafter},
        "parameters": dict(settings.parameters),
        "license": [settings.license],
        **{key: value for key, value in optional.items() if value is not None},
    }


def _run(server: Server, model: _Model, progress: ProgressCallback, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Send the missing files and create the model. Until the very end a model of that name stays as it was.

    Raises:
        GemmaqError: The server refuses, or the connection is lost; files that it has need not be sent again.
    """
    for upload in model.files:
        if not upload.present:
            ollama_api.send_blob(server.address, upload.digest, upload.path, progress=progress)
    ollama_api.create(server.address, _request(model), say)
    return {}


def default_name(artifact: Artifact) -> str:
    """`model-4b-it:q4_0` for model-4b-it-Q4_0.gguf."""
    stem, label = identify(artifact.name).stem, artifact.label
    stem = re.sub(rf"[-_.]{re.escape(label)}$", "", stem, flags=re.IGNORECASE)
    return check_name(f"{_allowed(stem)}:{_allowed(label)}")


def _allowed(text: str) -> str:
    """A text without the characters that Ollama does not allow in a name."""
    return (re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-.") or "model")[:80]


def check_name(name: str) -> str:
    """The name, if Ollama allows it: [host/][namespace/]model[:tag].

    Raises:
        UsageError: It does not.
    """
    rest, colon, tag = name.rpartition(":") if name.rfind(":") > name.rfind("/") else (name, "", "")
    parts = rest.split("/", 2)
    patterns = {1: (_PART,), 2: (_NAMESPACE, _PART), 3: (_HOST, _NAMESPACE, _PART)}[len(parts)]
    allowed = all(pattern.fullmatch(part) for pattern, part in zip(patterns, parts, strict=True))
    if not allowed or (colon and not _PART.fullmatch(tag)):
        raise UsageError(
            f"Ollama does not allow the model name {name!r}",
            "write model:tag or namespace/model:tag, of letters, digits, '-', '_' and '.'",
        )
    return name


def _check_version(server: Server, requires: str | None) -> None:
    """Refuse a server that would accept the model but not run it.

    A version of another form, and the 0.0.0 of a private build, tell nothing and pass.

    Raises:
        InputError: It is too old.
    """
    has, needs = (_VERSION.match(text or "") for text in (server.version, requires))
    if has is None or needs is None or has.group(1, 2, 3) == ("0", "0", "0"):
        return
    if tuple(map(int, has.groups())) < tuple(map(int, needs.groups())):
        raise InputError(
            f"Ollama at {server.address} is version {server.version}, this artifact needs {requires}", "update Ollama"
        )
