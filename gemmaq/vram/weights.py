"""What a model weighs in an engine: as its files hold it, or as the plan of a conversion will write it."""

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
from gemmaq.models.gemma3.config import TextConfig as Gemma3
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
        quant: type of the layers' matrices, as users type it.
        embedding: type of the embedding.
        model: with the bytes that follow.
    """

    quant: str
    embedding: str
    model: Model


def builds(
    checkpoint: Checkpoint, target: Format, quants: Sequence[str] | None, embeddings: Sequence[str] | None
) -> list[Build]:
    """The model in every choice of types that was asked for.

    Args:
        checkpoint: of the model.
        target: container that the engine loads.
        quants: types of the layers' matrices; None for what the files hold if the engine loads them as they are, BF16
            and Q4_0 otherwise.
        embeddings: types of the embedding; None for the container's own choice.

    Raises:
        UsageError: an unknown type.
        InputError: a type that the container or the model cannot have.
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
    wanted = recipe.of(quant, embedding, method="nearest")
    plan = make_plan(checkpoint, Request(wanted, (target.name,), mmproj=None), target)
    table = next(tensor for tensor in plan.tensors if tensor.source.place.role == Role.EMBEDDING)
    model = _model(checkpoint, target, plan.tensor_bytes, table.nbytes)
    return Build(plan.label.lower(), table.encoding.name, model)


def _model(checkpoint: Checkpoint, target: Format, weights: int, embedding: int) -> Model:
    seen = checkpoint.vision_bytes
    if seen and target.gguf_names and checkpoint.format not in CONTAINERS[target.name].formats:
        vision = checkpoint.family.vision
        seen = vision.mmproj_bytes(checkpoint.config.hidden_size, checkpoint.vision_config or vision.DEFAULT)
    assert isinstance(checkpoint.config, Gemma3)
    return Model(checkpoint.name, checkpoint.config, weights, embedding, seen)


def checkpoint_of(size: Size) -> Checkpoint:
    """A published size as a BF16 checkpoint that exists on no disk, to make plans for."""
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
    raise InputError("a published size by name has no tokenizer")
