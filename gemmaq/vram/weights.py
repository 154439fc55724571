"""Weight of a model in an engine: as its files hold it, or as the plan of a conversion would write it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gemmaq.checkpoint import Checkpoint, plain
from gemmaq.checkpoint.tokenizer import Tokenizer, TokenizerFiles
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError
from gemmaq.files.span import FileSpan
from gemmaq.models.config import TextConfig
from gemmaq.models.families import of_size
from gemmaq.models.roles import Place, Role
from gemmaq.models.size import Size
from gemmaq.models.towers import Shapes, Towers
from gemmaq.planning import recipe
from gemmaq.planning.containers import CONTAINERS
from gemmaq.planning.format import Format
from gemmaq.planning.plan import Plan
from gemmaq.planning.planner import make_plan
from gemmaq.planning.request import Request
from gemmaq.vram import Model

_DEFAULT = ("bf16", "q4_0")
_WITH_THE_FIRST = (Role.LAYER_PROJECTION,)


@dataclass(frozen=True, slots=True)
class Build:
    """A model in one choice of types.

    Attributes:
        quant: Type of the layers' matrices, as users type it.
        embedding: Type of the embedding.
        model: The model, with its bytes in these types.
    """

    quant: str
    embedding: str
    model: Model


def builds(
    checkpoint: Checkpoint, target: Format, quants: Sequence[str] | None, embeddings: Sequence[str] | None
) -> list[Build]:
    """Build of a model for every choice of types.

    Its drafter is as its file holds it if the engine loads that, else in the types of the model.

    Args:
        checkpoint: Checkpoint of the model.
        target: Container that the engine loads.
        quants: Types of the layers' matrices; None for what the files hold if the engine loads them as they are, BF16
            and Q4_0 otherwise.
        embeddings: Types of the embedding; None for the container's own choice.

    Raises:
        UsageError: A type is unknown.
        InputError: The container or the model cannot have a type.
    """
    if quants is None and embeddings is None and _is_loaded(checkpoint, target):
        return [_with_drafter(_as_it_is(checkpoint, target), checkpoint.drafter, target, None)]
    return [
        _with_drafter(_planned(checkpoint, target, q, e), checkpoint.drafter, target, e)
        for q in quants or _DEFAULT
        for e in embeddings or (None,)
    ]


def _is_loaded(checkpoint: Checkpoint, target: Format) -> bool:
    """Whether the files are of the container."""
    container = CONTAINERS[target.name]
    return checkpoint.format in (container.formats[0], *container.others)


def _with_drafter(build: Build, drafter: Checkpoint | None, target: Format, embedding: str | None) -> Build:
    if drafter is None:
        return build
    loaded = _is_loaded(drafter, target)
    made = _as_it_is(drafter, target) if loaded else _planned(drafter, target, build.quant, embedding)
    return replace(build, model=replace(build.model, drafter=made.model))


def _as_it_is(checkpoint: Checkpoint, target: Format) -> Build:
    embedding = checkpoint.embedding
    weights = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    if target.gguf_names:
        weights += sum(values.nbytes for values in checkpoint.family.gguf.generated(checkpoint.config).values())
    table = sum(t.nbytes for t in checkpoint.tensors.values() if t.place.role == Role.LAYER_EMBEDDING)
    model = _model(checkpoint, target.name, weights=weights, embedding=embedding.nbytes, layer_table=table)
    model = _layered(model, [(tensor.place, tensor.nbytes) for tensor in checkpoint.tensors.values()])
    return Build(checkpoint.body.name, embedding.encoding.name, model)


def _planned(checkpoint: Checkpoint, target: Format, quant: str, embedding: str | None) -> Build:
    wanted = recipe.of(quant, embedding=embedding, method="nearest")
    if wanted.needs_importance:
        if checkpoint.family.drafts:
            wanted = recipe.of("q4_0", embedding=embedding, method="nearest")  # as beside a target in such a type
        else:
            wanted = replace(wanted, method="importance")
    return of_plan(checkpoint, make_plan(checkpoint, Request(wanted, (target.name,), mmproj=None), target))


def of_plan(checkpoint: Checkpoint, plan: Plan) -> Build:
    """Build of what a plan writes of a model; drafters and the plan's own towers do not count."""
    embedded = next(tensor for tensor in plan.tensors if tensor.source.place.role == Role.EMBEDDING)
    table = sum(tensor.nbytes for tensor in plan.tensors if tensor.source.place.role == Role.LAYER_EMBEDDING)
    model = _model(checkpoint, plan.format, weights=plan.tensor_bytes, embedding=embedded.nbytes, layer_table=table)
    model = _layered(model, [(tensor.source.place, tensor.nbytes) for tensor in plan.tensors])
    return Build(plan.label.lower(), embedded.encoding.name, model)


def _layered(model: Model, tensors: Sequence[tuple[Place, int]]) -> Model:
    """A model with the bytes of its layers; what makes the inputs of all layers lies with the first."""
    layers, experts, largest = [0] * model.config.num_hidden_layers, [0] * model.config.num_hidden_layers, 0
    for place, nbytes in tensors:
        number = 0 if place.layer is None and place.role in _WITH_THE_FIRST else place.layer
        if number is None:
            continue
        layers[number] += nbytes
        if place.role == Role.EXPERTS:
            experts[number] += nbytes
        elif place.layer is not None:
            largest = max(largest, nbytes)
    return replace(model, by_layer=tuple(layers), experts=tuple(experts) if any(experts) else (), largest=largest)


def _model(checkpoint: Checkpoint, container: str, *, weights: int, embedding: int, layer_table: int) -> Model:
    config, size, towers = None, checkpoint.towers_bytes, checkpoint.family.towers
    if size and towers is not None:
        config = checkpoint.towers_config
        if container == "gguf" and checkpoint.format not in CONTAINERS[container].formats:
            size = _mmproj_bytes(towers, towers.shapes(config, checkpoint.config.hidden_size))
    return Model(
        checkpoint.name,
        checkpoint.config,
        weights,
        embedding,
        layer_table=layer_table,
        towers=size,
        towers_config=config,
        encoder=checkpoint.family.embeds,
    )


def _mmproj_bytes(towers: Towers, shapes: Shapes) -> int:
    """Bytes of the tensors of an F16 mmproj file."""
    return sum(
        math.prod(shape) * ENCODINGS[towers.mmproj_type(name, shape, "f16")].row_bytes(1) for name, shape in shapes
    )


def checkpoint_of(size: Size) -> Checkpoint:
    """Checkpoint of a published size in BF16, without files: enough to make plans for."""
    nowhere, family = FileSpan((), (), 0), of_size(size)
    bf16, hidden = ENCODINGS["bf16"], size.config.hidden_size
    tensors = {
        name: plain(name, shape, bf16, span=nowhere, offset=0, place=family.names.place(name))
        for name, shape in family.names.shapes(size.config)
    }
    towers = (
        {
            name: plain(name, shape, bf16, span=nowhere, offset=0, place=family.towers.place(name))
            for name, shape in family.towers.shapes(size.towers_config, hidden)
        }
        if family.towers and size.towers_config
        else {}
    )
    return Checkpoint(
        name=size.name,
        location=size.name,
        format="published",
        family=family,
        config=size.config,
        tensors=tensors,
        tokenizer_files=TokenizerFiles(_no_tokenizer),
        towers=towers,
        towers_config=size.towers_config,
    )


def _no_tokenizer(config: TextConfig) -> Tokenizer:
    raise InputError("a published size that is given by name has no tokenizer")
