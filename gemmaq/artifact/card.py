"""The model card of an artifact: source, files, how to run it, and the memory that it takes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.files.names import is_mmproj, split_type, stem
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family
from gemmaq.models.identity import identify
from gemmaq.models.roles import Role
from gemmaq.planning.containers import CONTAINERS, Container, of_checkpoint_format
from gemmaq.planning.plan import Plan

NAME = "README.md"

_GB = 1e9
_SIGNED = re.compile(r"<!-- written by gemmaq, sha256 of the text above: ([0-9a-f]{64}) -->\n")

File = tuple[str, int, str]
"""Path, bytes, SHA-256 in hex."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the card describes it.

    Attributes:
        name: Name of the model.
        container: The container that it is in.
        family: Its family.
        config: Dimensions of the text model.
        card: Metadata of the source's card.
        repo: Repository of the source, None if it is not known.
        body: Name of the encoding of the layers' matrices.
        kinds: Encoding -> number of tensors in it.
        parameters: Number of weights of the text model.
        weights: Bytes of its tensors.
        embedding: Bytes of the embedding among them.
        vision: Bytes of the vision tensors.
        files: Names of the files in the model's folder.
    """

    name: str
    container: Container
    family: Family
    config: TextConfig
    card: Mapping[str, Any]
    repo: str | None
    body: str
    kinds: Mapping[str, int]
    parameters: int
    weights: int
    embedding: int
    vision: int
    files: tuple[str, ...]


def of_checkpoint(checkpoint: Checkpoint, folder: Path, *, name: str | None = None, repo: str | None = None) -> Model:
    """Describe a model on disk.

    Args:
        checkpoint: Its headers.
        folder: Its folder.
        name: Name of the model, None for that of the checkpoint.
        repo: Repository of the source, None if it is not known.
    """
    tensors = checkpoint.tensors.values()
    return Model(
        name=name or checkpoint.name,
        container=of_checkpoint_format(checkpoint.format),
        family=checkpoint.family,
        config=checkpoint.config,
        card=checkpoint.card,
        repo=repo,
        body=checkpoint.body.name,
        kinds=Counter(tensor.encoding.name for tensor in tensors),
        parameters=checkpoint.parameters,
        weights=sum(tensor.nbytes for tensor in tensors),
        embedding=checkpoint.embedding.nbytes,
        vision=checkpoint.vision_bytes,
        files=tuple(sorted(path.name for path in folder.iterdir() if path.is_file())),
    )


def of_plan(plan: Plan, source: Checkpoint, *, repo: str | None, files: Sequence[str]) -> Model:
    """Describe a model that a plan makes.

    Args:
        plan: The plan of a container, carried out.
        source: The checkpoint that it was made for.
        repo: Repository of the source, None if it is not known.
        files: Names of the files in the model's folder.
    """
    embeddings = [tensor for tensor in plan.tensors if tensor.source.place.role == Role.EMBEDDING]
    return Model(
        name=source.name,
        container=CONTAINERS[plan.format],
        family=source.family,
        config=source.config,
        card=source.card,
        repo=repo,
        body=plan.body.name,
        kinds=plan.counts,
        parameters=plan.elements,
        weights=plan.tensor_bytes,
        embedding=sum(tensor.nbytes for tensor in embeddings),
        vision=sum(tensor.nbytes for tensor in plan.extra if tensor.source.name in source.vision),
        files=tuple(files),
    )


def text(repo: str | None, models: Sequence[Model], files: Sequence[File], *, memory: Callable[[Model], str]) -> str:
    """The card with its front matter. The last line is the digest of all others.

    Args:
        repo: Repository where it is published, None for commands that run the local files.
        models: Models of the artifact.
        files: All files of the artifact.
        memory: Text about the memory that a model takes.
    """
    import yaml

    identity = identify(models[0].name)
    runtimes = "; ".join(model.container.runtimes for model in models)
    parts = [
        f"# {identity.title}",
        f"{models[0].family.title}, quantized by gemmaq for {runtimes}.",
        "## Files",
        table(("file", "size", "sha256"), [_row(*file) for file in files]),
        *(part for model in models for part in (*_section(repo, model), memory(model))),
        "## License",
        f"{models[0].family.license.notice}.",
    ]
    front = yaml.safe_dump(_front_matter(models, identity.official), sort_keys=False, allow_unicode=True)
    card = f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n\n"
    return f"{card}<!-- written by gemmaq, sha256 of the text above: {_digest(card)} -->\n"


def is_ours(card: str) -> bool:
    """Whether gemmaq wrote a card and nobody has changed it since."""
    lines = card.splitlines(keepends=True)
    signature = _SIGNED.fullmatch(lines[-1]) if lines else None
    return signature is not None and signature[1] == _digest("".join(lines[:-1]))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _digest(card: str) -> str:
    return hashlib.sha256(card.encode()).hexdigest()


def _front_matter(models: Sequence[Model], official: str | None) -> dict[str, Any]:
    """Metadata of the card; `official` is the publisher's repository of the source, if its name is one."""
    first = models[0]
    usual = first.family.license
    front: dict[str, Any] = {"license": first.card.get("license") or usual.name}
    if front["license"] == usual.name:
        front["license_link"] = usual.link
    front |= {key: first.card[key] for key in ("license_name", "license_link", "language") if key in first.card}
    source = [first.repo] if first.repo else []
    bases = source or first.card.get("base_model") or ([official] if official else [])
    if bases:
        front["base_model"] = bases if isinstance(bases, str) else list(bases)
        front["base_model_relation"] = "quantized"
    libraries = [model.container.library for model in models]
    front["library_name"] = libraries[0]
    front["pipeline_tag"] = "image-text-to-text" if first.vision else "text-generation"
    tags = [first.family.name, "gemma", *libraries, *(model.body for model in models)]
    front["tags"] = list(dict.fromkeys(tags))
    front["quantized_by"] = "gemmaq"
    return front


def _section(repo: str | None, model: Model) -> list[str]:
    """Heading, size and commands of one model."""
    kinds = ", ".join(f"{count} {name.upper()}" for name, count in Counter(model.kinds).most_common())
    bits = 8 * model.weights / model.parameters
    size = f"{model.parameters:,} parameters in {model.weights:,} bytes, {bits:.2f} bits each: {kinds}."
    if model.vision:
        size += f" The vision side takes {model.vision:,} bytes more."
    commands = _local(model) if repo is None else _published(model, repo)
    return [f"## {model.container.title}", size, "```sh\n" + "\n".join(commands) + "\n```"]


def _row(path: str, size: int, sha256: str) -> tuple[str, str, str]:
    return f"`{path}`", f"{size / _GB:.2f} GB" if size > 1e8 else f"{size:,} B", sha256[:16]


def _local(model: Model) -> list[str]:
    """Commands for the model in the current folder."""
    files = sorted(name for name in model.files if name.endswith((".gguf", ".safetensors")))
    projector = next(filter(is_mmproj, files), None)
    weights = next(name for name in files if name != projector)
    values = {
        "weights": weights,
        "stem": stem(weights).lower(),
        "projector": f" --mmproj {projector}" if projector else "",
    }
    return [
        command.here.format(**values)
        for command in model.container.commands
        if (model.vision or not command.vision) and (command.file is None or command.file in model.files)
    ]


def _published(model: Model, repo: str) -> list[str]:
    """Commands for the model in a repository."""
    commands = [command for command in model.container.commands if model.vision or not command.vision]
    return [command.hub.format(repo=repo, type=_type_of_files(model)) for command in commands]


def _type_of_files(model: Model) -> str:
    """Type that runtimes choose a file of a repository by: as in the file's name, where a mixture has its own."""
    types = (split_type(stem(name))[1] for name in model.files if name.endswith(".gguf") and not is_mmproj(name))
    return next((kind for kind in types if kind is not None), model.body.upper())
