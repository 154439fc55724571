"""Models for `gemmaq estimate-vram`: opened or taken from the published sizes, and fitted on cards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gemmaq import vram
from gemmaq.cli import console
from gemmaq.errors import UsageError
from gemmaq.models.families import drafters

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.models.size import Size
    from gemmaq.vram import Engine, Load
    from gemmaq.vram.cards import Card
    from gemmaq.vram.fit import Result
    from gemmaq.vram.weights import Build


CONTEXT = 8192
"""Tokens of context unless others are asked for."""


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that was asked for but the models; `all_sizes` if none was named.

    A drafter beside a model is loaded with it if `seeks_drafter`. Cards of a group share a model. `weights` is the
    weight file that the user chose.
    """

    engine: Engine
    quants: list[str] | None
    embeddings: list[str] | None
    contexts: list[int] | None
    load: Load
    vision: bool | None
    drafter: Checkpoint | None
    seeks_drafter: bool
    groups: list[list[Card]]
    all_sizes: bool
    weights: str | None = None
    base: str | None = None


def groups(names: list[str]) -> list[list[Card]]:
    """Cards that share a model; those of one name are alternatives."""
    groups: list[list[Card]] = []
    for name in names:
        parts = [part.strip() for part in name.split("+")]
        groups += [[card] for card in _cards(parts)] if len(parts) == 1 else [_cards(parts)]
    return groups


def _cards(names: list[str]) -> list[Card]:
    from gemmaq.vram import cards, detect

    result: list[Card] = []
    for name in names:
        if name.lower() != "auto":
            result.append(cards.find(name))
            continue
        detected = detect.cards()
        if not detected:
            console.warn("no card found by nvidia-smi, rocm-smi or sysctl; name one with --gpu")
        result += detected
    return result


def results(name: str, request: Request) -> Iterator[Result]:
    """Results of one model in every type and context."""
    from gemmaq import containers
    from gemmaq.vram.weights import builds

    checkpoint = _with_drafter(
        open_model(name, drafts=request.seeks_drafter, weights=request.weights, base=request.base), request
    )
    for note in checkpoint.remarks:
        console.note(note)
    target = containers.writer(request.engine.container).FORMAT
    others = builds(checkpoint, target, request.engine.quants, request.embeddings) if request.groups else []
    chosen = builds(checkpoint, target, request.quants, request.embeddings)
    if chosen[0].model.encoder and not request.engine.encodes:
        weights = ", ".join(f"{build.quant} {console.size(build.model.weights)}" for build in chosen)
        raise UsageError(
            f"{checkpoint.name} turns texts into vectors; of its memory in {request.engine.title} only the weights are "
            f"known: {weights}",
            "take llama.cpp: --engine llama.cpp",
        )
    longest = vram.longest(chosen[0].model, request.load)
    contexts = request.contexts or [min(CONTEXT, longest)]
    if request.all_sizes:
        for context in contexts:
            if context > longest:
                console.warn(f"{checkpoint.name} is left out at {context} tokens, its context ends at {longest}")
        contexts = [context for context in contexts if context <= longest]
    for build in chosen:
        for context in contexts:
            load = replace(request.load, context=context, vision=_loads_vision(request, checkpoint, build))
            yield _fitted(request, build, load, others)


def _fitted(request: Request, build: Build, load: Load, others: Sequence[Build]) -> Result:
    """Memory of a model, and how it fits every card, and all cards of a group together."""
    from gemmaq.vram import fit, placement

    engine, groups = request.engine, request.groups
    single = [group[0] for group in groups if len(group) == 1]
    result = fit.result(engine, build, load, cards=single, others=others)
    alone = iter(result.fits)
    together = (
        next(alone) if len(group) == 1 else placement.fit_together(engine, build, load, group, others)
        for group in groups
    )
    return replace(result, fits=tuple(together))


def _loads_vision(request: Request, checkpoint: Checkpoint, build: Build) -> bool:
    """Whether towers are loaded: as asked for, else if the engine does or an mmproj file is in the folder."""
    has_vision = build.model.towers_config is not None
    if request.vision is not None:
        return request.vision and (has_vision or not request.all_sizes)
    has_mmproj = request.engine.supports_vision and request.engine.container == checkpoint.format == "gguf"
    return has_vision and (request.engine.vision_by_default or has_mmproj)


def _with_drafter(checkpoint: Checkpoint, request: Request) -> Checkpoint:
    """A model with the drafter that was asked for."""
    from gemmaq.checkpoint.drafters import with_drafter

    require_target(checkpoint)
    return checkpoint if request.drafter is None else with_drafter(checkpoint, request.drafter)


def require_target(checkpoint: Checkpoint) -> None:
    """Refuse a drafter in the place of a model.

    Raises:
        UsageError: It is one.
    """
    if checkpoint.family.drafts:
        raise UsageError(
            f"{checkpoint.name} is a {checkpoint.family.title}: it runs beside its target alone",
            f"name the target, and the drafter behind it: --draft {checkpoint.location}",
        )


def drafter(name: str, engine: Engine) -> Checkpoint:
    """The drafter that a user names.

    Raises:
        UsageError: The memory of drafters in the engine is not known.
    """
    vram.require_drafts(engine)
    checkpoint = open_model(name, drafters())
    for note in checkpoint.remarks:
        console.note(note)
    return checkpoint


def open_model(
    model: str,
    published: Sequence[Size] = (),
    *,
    drafts: bool = False,
    weights: str | None = None,
    base: str | None = None,
) -> Checkpoint:
    """Open a source, or a published size.

    Args:
        model: What the user typed.
        published: Sizes to tell where there is no such size, all models if not given.
        drafts: Whether to take the drafter beside a model.
        weights: Weight file that the user chose, None for no choice.
        base: Base model of an adapter, None for the one that its config names.
    """
    from gemmaq.checkpoint.lora.model import as_stored
    from gemmaq.models.families import namesakes, require_size, size_by_name
    from gemmaq.sources.companions import Need, Wish
    from gemmaq.sources.open import open_source
    from gemmaq.vram.weights import checkpoint_of

    size = size_by_name(model)
    if size is not None and not Path(model).exists():
        others = [other.name for other in namesakes(size) if model.lower() == size.label.lower()]
        if others:
            console.say(f"{model} means {size.name}; {' and '.join(others)} goes by its whole name.")
        return checkpoint_of(size)
    if any(mark in model for mark in "/.:\\") or Path(model).exists():
        wish = Wish(drafter=Need.DECIDED if drafts else Need.NONE, weights=weights, base=base)
        return as_stored(open_source(model, wish))
    return checkpoint_of(require_size(model, published))
