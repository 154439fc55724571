"""A model in one type as its card describes it: from headers, from the plan that it is made by, or from a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gemmaq.artifact.provenance import Provenance, Quality
from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.encodings import Encoding
from gemmaq.files.names import Parts, is_drafter, is_mmproj, parts, split_type, stem
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family
from gemmaq.models.roles import Role
from gemmaq.models.towers_config import TowersConfig
from gemmaq.planning.containers import CONTAINERS, Container, of_checkpoint_format, with_experts
from gemmaq.planning.plan import Plan
from gemmaq.planning.request import Calibration


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
        layer_table: Bytes of the embeddings of every layer among them.
        towers: Bytes of the towers.
        towers_config: Dimensions of the towers, None for a text-only model.
        files: Names of the files in the model's folder.
        drafter: The drafter beside it, None for none.
        revision: Commit of the source in its repository, None if it is not known.
        methods: Names of the methods that chose its codes; none if they are the source's, or not known.
        calibration: What it was calibrated on, None if it was not.
        quality: How it predicts texts, None if that was not measured.
        adapter: What gemmaq.json says of the adapter that was merged into the source, None for none.
        requantized: Number of tensors whose codes were chosen from weights that had been quantized before.
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
    layer_table: int
    towers: int
    towers_config: TowersConfig | None
    files: tuple[str, ...]
    drafter: Model | None = None
    revision: str | None = None
    methods: tuple[str, ...] = ()
    calibration: Calibration | None = None
    quality: Quality | None = None
    adapter: Mapping[str, Any] | None = None
    requantized: int = 0

    @property
    def label(self) -> str:
        """Type as runtimes know it: that in the name of a GGUF file, where a mixture has its own."""
        types = (split_type(stem(name))[1] for name in self.parts.model if name.endswith(".gguf"))
        return next((kind for kind in types if kind is not None), self.body.upper())

    @property
    def parts(self) -> Parts:
        """The weight files by what they hold."""
        return parts(name for name in self.files if name.endswith((".gguf", ".safetensors")))


_FIGURES = ("body", "kinds", "parameters", "weights", "embedding", "layer_table", "towers")


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
        container=_container(
            of_checkpoint_format(checkpoint.format), ((tensor.place.role, tensor.encoding) for tensor in tensors)
        ),
        family=checkpoint.family,
        config=checkpoint.config,
        card=checkpoint.card,
        repo=repo,
        body=checkpoint.body.name,
        kinds=Counter(tensor.encoding.name for tensor in tensors),
        parameters=checkpoint.parameters,
        weights=sum(tensor.nbytes for tensor in tensors),
        embedding=checkpoint.embedding.nbytes,
        layer_table=_bytes_of(tensors, Role.LAYER_EMBEDDING),
        towers=checkpoint.towers_bytes,
        towers_config=checkpoint.towers_config,
        files=tuple(sorted(path.name for path in folder.iterdir() if path.is_file() and _is_own(path, checkpoint))),
        drafter=of_checkpoint(checkpoint.drafter, folder) if checkpoint.drafter is not None else None,
    )


def _is_own(path: Path, checkpoint: Checkpoint) -> bool:
    """Whether a file in the folder of a model is no mmproj file or drafter of another one."""
    beside = is_mmproj(path.name) or is_drafter(path.name)
    return not beside or path.name in {own.name for own in checkpoint.files}


def _bytes_of(tensors: Iterable[Tensor], role: Role) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor.place.role is role)


def of_plan(plan: Plan, source: Checkpoint, *, repo: str | None, files: Sequence[str]) -> Model:
    """Describe a model that a plan makes.

    Args:
        plan: The plan of a container, carried out.
        source: The checkpoint that it was made for.
        repo: Repository of the source, None if it is not known.
        files: Names of the files in the model's folder.
    """
    sizes: Counter[Role] = Counter()
    for tensor in plan.tensors:
        sizes[tensor.source.place.role] += tensor.nbytes
    towers = sum(tensor.nbytes for tensor in plan.extra if tensor.source.name in source.towers)
    drafter = None
    if plan.drafter is not None and source.drafter is not None:
        drafter = of_plan(plan.drafter, source.drafter, repo=None, files=files)
    return Model(
        name=source.name,
        container=_container(
            CONTAINERS[plan.format], ((tensor.source.place.role, tensor.encoding) for tensor in plan.tensors)
        ),
        family=source.family,
        config=source.config,
        card=source.card,
        repo=repo,
        body=plan.body.name,
        kinds=plan.counts,
        parameters=plan.elements,
        weights=plan.tensor_bytes,
        embedding=sizes[Role.EMBEDDING],
        layer_table=sizes[Role.LAYER_EMBEDDING],
        towers=towers,
        towers_config=source.towers_config if towers else None,
        files=tuple(files),
        drafter=drafter,
    )


def _container(usual: Container, tensors: Iterable[tuple[Role, Encoding]]) -> Container:
    """The container as it is for a model with tensors of these roles and types."""
    experts = any(role is Role.EXPERTS and not encoding.is_float for role, encoding in tensors)
    return with_experts(usual) if experts else usual


def size(model: Model) -> dict[str, Any]:
    """The figures of a model that gemmaq.json keeps, so that its card can be written without its files."""
    own: dict[str, Any] = {name: getattr(model, name) for name in _FIGURES}
    own["kinds"] = dict(model.kinds)
    return own | ({"drafter": size(model.drafter)} if model.drafter is not None else {})


def of_size(figures: Mapping[str, Any], like: Model, files: Sequence[str]) -> Model:
    """Describe a model by its figures on record.

    Args:
        figures: what `size` gave.
        like: the same model in another type.
        files: Names of the files in the model's folder.
    """
    drafter = None
    if "drafter" in figures and like.drafter is not None:
        drafter = of_size(figures["drafter"], like.drafter, files)
    own = {name: figures[name] for name in _FIGURES}
    made: dict[str, Any] = {"methods": (), "calibration": None, "quality": None}
    return replace(like, **own, **made, files=tuple(files), drafter=drafter)


def of_record(record: Provenance, like: Model, files: Sequence[str]) -> Model:
    """Describe a model by its entry in gemmaq.json.

    Args:
        record: the entry.
        like: the same model in any type.
        files: names of the files in the model's folder, without those of models in other types.
    """
    figures = record.entry.get("size")
    model = of_size(figures, like, files) if figures is not None else replace(like, files=tuple(files))
    return replace(
        model,
        name=record.name,
        repo=record.repo,
        revision=record.entry["source"].get("revision"),
        methods=tuple(record.entry.get("method", ())),
        calibration=record.request.calibration,
        quality=record.quality,
        adapter=record.adapter,
        requantized=sum(tensor.get("how") == "requantized" for tensor in record.entry["tensors"]),
    )


def of_records(records: Sequence[Provenance], like: Model, files: Iterable[str]) -> list[Model]:
    """Describe all models of a gemmaq.json; `files` are the names of all files in the folder, the rest as above."""
    names, models = list(files), []
    weights = [{file.path for file in record.files} for record in records]
    for record, own in zip(records, weights, strict=True):
        others = set().union(*weights) - own
        models.append(of_record(record, like, [name for name in names if name not in others]))
    return models
