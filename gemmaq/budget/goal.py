"""What a model's types are chosen for: a size of its files, bits per weight, or a card that it has to fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gemmaq import containers
from gemmaq.checkpoint import Checkpoint
from gemmaq.files.names import parts
from gemmaq.planning.plan import Plan
from gemmaq.vram import Engine, Load, fit
from gemmaq.vram.cards import Card
from gemmaq.vram.placement import place
from gemmaq.vram.weights import Build, of_plan


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
        cards: cards that are used together; each may be several of a kind.
        offload: bytes of main memory that experts and layers may take which have no room on the cards.
    """

    engine: Engine
    load: Load
    cards: tuple[Card, ...]
    offload: int = 0


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
    cards = " and ".join(card.name for card in goal.cards)
    beside = f" and {goal.offload:,} bytes of main memory" if goal.offload else ""
    return f"{cards}{beside} in {goal.engine.title} at {load.context:,} tokens, {kinds} cache{several}"


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
    return _on_cards(goal, build, load)


def _on_cards(goal: Fit, build: Build, load: Load) -> int:
    """Bytes that a model leaves on the fullest card, or of the main memory that it may take."""
    (first, *others), engine = goal.cards, goal.engine
    if not others and first.count == 1 and not goal.offload:
        return fit.room(engine, build, load, first)
    whole = place(engine, build, load, goal.cards)
    if whole.fits or not goal.offload:
        return whole.room + (goal.offload if whole.fits else 0)
    spread = place(engine, build, load, goal.cards, offload=True)
    return goal.offload - (spread.host - whole.host) if spread.fits else whole.room


def file_bytes(checkpoint: Checkpoint, plan: Plan) -> int:
    """Bytes of the files of a model, as `FileBytes` counts them."""
    files = containers.writer(plan.format).lay_out(checkpoint, plan, plan.request.shard_bytes)
    beside = parts(file.name for file in files)
    return sum(file.size for file in files if file.name not in (beside.projector, beside.drafter))


def _build(checkpoint: Checkpoint, plan: Plan, engine: Engine) -> Build:
    """A planned model as an engine holds it, with the towers and the drafter that it loads."""
    build = of_plan(checkpoint, plan)
    sees = plan.mmproj is not None and engine.supports_vision
    sees &= engine.vision_by_default or engine.container == "gguf"
    towers = sum(tensor.nbytes for tensor in plan.extra if tensor.source.name in checkpoint.towers)
    model = replace(build.model, towers=towers if sees else 0, towers_config=checkpoint.towers_config if sees else None)
    if plan.drafter is not None and checkpoint.drafter is not None and engine.drafts_by_default:
        model = replace(model, drafter=of_plan(checkpoint.drafter, plan.drafter).model)
    return replace(build, model=model)
