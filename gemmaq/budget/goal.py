"""What a model's types are chosen for: a size of its files, bits per weight, or a card that it has to fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gemmaq import containers
from gemmaq.checkpoint import Checkpoint
from gemmaq.files.names import parts
from gemmaq.models.roles import Role
from gemmaq.planning.plan import Plan
from gemmaq.vram import Engine, Load, Model, fit
from gemmaq.vram.cards import Card
from gemmaq.vram.weights import Build


@dataclass(frozen=True, slots=True)
class FileBytes:
    """A size of the model's files: weights and all that lies in them or beside them for the runtime.

    An mmproj file, a drafter, an importance matrix and what gemmaq writes besides (card, gemmaq.json, checksums) do not
    count. The towers of containers that keep them in the same files do.

    Attributes:
        bytes: largest size.
    """

    bytes: int


@dataclass(frozen=True, slots=True)
class Bits:
    """Bits per weight of the text model.

    Attributes:
        bits: most bits per weight, headers and padding apart.
    """

    bits: float


@dataclass(frozen=True, slots=True)
class Fit:
    """A card that the model has to fit while it runs.

    Towers count where the run writes them and the engine loads them by itself, or takes them from an mmproj file. A
    drafter counts where it is written and the engine loads it by itself.

    Attributes:
        engine: runtime.
        load: settings of the run.
        card: the card, or several of a kind.
    """

    engine: Engine
    load: Load
    card: Card


Goal = FileBytes | Bits | Fit


def described(goal: Goal) -> str:
    """A goal in words, without the words for what has to meet it."""
    if isinstance(goal, FileBytes):
        return f"{goal.bytes:,} bytes of files"
    if isinstance(goal, Bits):
        return f"{goal.bits:g} bits per weight"
    load = goal.load
    kinds = "/".join(dict.fromkeys(load.kv_types))
    several = f", {load.parallel} sequences" if load.parallel > 1 else ""
    return f"{goal.card.name} in {goal.engine.title} at {load.context:,} tokens, {kinds} cache{several}"


def room(goal: Goal, checkpoint: Checkpoint, plan: Plan) -> int:
    """Bytes that a plan leaves of what it may take; negative if it takes more.

    Raises:
        InputError: the files cannot be laid out, as those of a model without a tokenizer.
        UsageError: the engine or the model does not support the settings of the run.
    """
    if isinstance(goal, FileBytes):
        return goal.bytes - file_bytes(checkpoint, plan)
    if isinstance(goal, Bits):
        return int(goal.bits * plan.elements / 8) - plan.tensor_bytes
    build = _build(checkpoint, plan, goal.engine)
    load = replace(goal.load, vision=build.model.towers_config is not None)
    return fit.room(goal.engine, build, load, goal.card)


def file_bytes(checkpoint: Checkpoint, plan: Plan) -> int:
    """Bytes of the files of a model, as `FileBytes` counts them."""
    files = containers.writer(plan.format).lay_out(checkpoint, plan, plan.request.shard_bytes)
    beside = parts(file.name for file in files)
    return sum(file.size for file in files if file.name not in (beside.projector, beside.drafter))


def _build(checkpoint: Checkpoint, plan: Plan, engine: Engine) -> Build:
    """A planned model as an engine holds it."""
    sees = plan.mmproj is not None and engine.supports_vision
    sees &= engine.vision_by_default or engine.container == "gguf"
    model = _model(checkpoint, plan)
    if sees:
        towers = sum(tensor.nbytes for tensor in plan.extra if tensor.source.name in checkpoint.towers)
        model = replace(model, towers=towers, towers_config=checkpoint.towers_config)
    if plan.drafter is not None and checkpoint.drafter is not None and engine.drafts_by_default:
        model = replace(model, drafter=_model(checkpoint.drafter, plan.drafter))
    return Build(plan.label.lower(), "", model)


def _model(checkpoint: Checkpoint, plan: Plan) -> Model:
    """The text side of a planned model."""

    def of(role: Role) -> int:
        return sum(tensor.nbytes for tensor in plan.tensors if tensor.source.place.role is role)

    return Model(
        checkpoint.name,
        checkpoint.config,
        plan.tensor_bytes,
        of(Role.EMBEDDING),
        layer_table=of(Role.LAYER_EMBEDDING),
        encoder=checkpoint.family.embeds,
    )
