"""Weight of a model in an engine: as its files hold it, or as the plan of a conversion would write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gemmaq.checkpoint import Checkpoint, plain
from gemmaq.checkpoint.tokenizer import Tokenizer, TokenizerFiles
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError
from gemmaq.files.span import FileSpan
from gemmaq.models.config import TextConfig
from gemmaq.models.families import of_size
from gemmaq.models.roles import VISION, Role
from gemmaq.models.size import Size
from gemmaq.planning import recipe
from gemmaq.planning.containers import CONTAINERS
from gemmaq.planning.plan import Format
from gemmaq.planning.planner import make_plan
from gemmaq.planning.request import Request
from gemmaq.vram import Model

_DEFAULT = ("bf16", "q4_0")


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
    if quants is None and embeddings is None and checkpoint.format == CONTAINERS[target.name].formats[0]:
        return [_as_it_is(checkpoint, target)]
    return [_planned(checkpoint, target, q, e) for q in quants or _DEFAULT for e in embeddings or (None,)]


def _as_it_is(checkpoint: Checkpoint, target: Format) -> Build:
    embedding = checkpoint.embedding
    weights = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    model = _model(checkpoint, target, weights, embedding.nbytes)
    return Build(checkpoint.body.name, embedding.encoding.name, model)


def _planned(checkpoint: Checkpoint, target: Format, quant: str, embedding: str | None) -> Build:
    wanted = recipe.of(quant, embedding=embedding, method="nearest")
    plan = make_plan(checkpoint, Request(wanted, (target.name,), mmproj=None), target)
    table = next(tensor for tensor in plan.tensors if tensor.source.place.role == Role.EMBEDDING)
    model = _model(checkpoint, target, plan.tensor_bytes, table.nbytes)
    return Build(plan.label.lower(), table.encoding.name, model)


def _model(checkpoint: Checkpoint, target: Format, weights: int, embedding: int) -> Model:
    tower, vision = None, checkpoint.vision_bytes
    if vision:
        tower = checkpoint.vision_config or checkpoint.family.vision.DEFAULT
    if tower and target.gguf_names and checkpoint.format not in CONTAINERS[target.name].formats:
        vision = checkpoint.family.vision.mmproj_bytes(checkpoint.config.hidden_size, tower)
    return Model(checkpoint.name, checkpoint.config, weights, embedding, vision=vision, vision_config=tower)


def checkpoint_of(size: Size) -> Checkpoint:
    """Checkpoint of a published size in BF16, without files: enough to make plans for."""
    nowhere, family = FileSpan((), (), 0), of_size(size)
    bf16, hidden = ENCODINGS["bf16"], size.config.hidden_size
    tensors = {
        name: plain(name, shape, bf16, span=nowhere, offset=0, place=family.names.place(name))
        for name, shape in family.names.shapes(size.config)
    }
    vision = {
        name: plain(name, shape, bf16, span=nowhere, offset=0, place=VISION)
        for name, shape in (family.vision.shapes(size.vision_config, hidden) if size.vision_config else ())
    }
    return Checkpoint(
        name=size.name,
        location=size.name,
        format="published",
        family=family,
        config=size.config,
        tensors=tensors,
        tokenizer_files=TokenizerFiles(_no_tokenizer),
        vision=vision,
        vision_config=size.vision_config,
    )


def _no_tokenizer(config: TextConfig) -> Tokenizer:
    raise InputError("a published size that is given by name has no tokenizer")
