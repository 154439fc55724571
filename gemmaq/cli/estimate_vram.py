"""`gemmaq estimate-vram`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemmaq import vram
from gemmaq.cli import console
from gemmaq.cli.console import Output
from gemmaq.cli.options import Json, every_gguf, listed_values, quiet_option
from gemmaq.errors import UnsupportedModelError, UsageError
from gemmaq.models.families import TODAY, drafters, sizes

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.models.size import Size
    from gemmaq.vram import Engine, Load
    from gemmaq.vram.cards import Card
    from gemmaq.vram.fit import Result
    from gemmaq.vram.weights import Build

_SIZES = f"{TODAY.sizes[0].label}, {TODAY.sizes[-1].name}"
_CONTEXT = 8192


def estimate_vram(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help=f"Published sizes ({_SIZES}), folders, .gguf files or repositories. "
            f"Default: the sizes of {TODAY.title}.",
        ),
    ] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Estimate every published size that continues texts, older ones too.")
    ] = False,
    quants: Annotated[
        list[str] | None,
        typer.Option(
            "--quant",
            metavar="TYPE",
            help="Type of the weights, or several with commas between or the option repeated. Default: that of a "
            "quantized file, else bf16 and q4_0.",
        ),
    ] = None,
    embeddings: Annotated[
        list[str] | None,
        typer.Option(
            "--embedding", metavar="TYPE", help="Type of the embedding; can be repeated. Default: as in convert."
        ),
    ] = None,
    contexts: Annotated[
        list[int] | None,
        typer.Option(
            "--context", metavar="N", help=f"Tokens of context; can be repeated. Default: {_CONTEXT}, or the longest."
        ),
    ] = None,
    kv_type: Annotated[
        str | None,
        typer.Option(
            "--kv-type", metavar="K[,V]", help="Type of the KV cache, or one for K and one for V. Default: 16 bits."
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(metavar="NAME", help=f"Runtime: {', '.join(vram.NAMES[:-1])} or {vram.NAMES[-1]}."),
    ] = "llama.cpp",
    parallel: Annotated[int, typer.Option(metavar="N", help="Sequences that run at a time.")] = 1,
    ubatch: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens that are computed at a time. Default: the runtime's.")
    ] = None,
    flash_attention: Annotated[
        bool, typer.Option("--flash-attn/--no-flash-attn", help="Compute attention without storing its scores.")
    ] = True,
    swa_full: Annotated[
        bool | None,
        typer.Option(
            "--swa-full/--no-swa-full", help="Keep the whole context in sliding-window layers too.", show_default=False
        ),
    ] = None,
    unified: Annotated[
        bool | None,
        typer.Option("--kv-unified/--no-kv-unified", help="Share one cache among all sequences.", show_default=False),
    ] = None,
    vision: Annotated[
        bool | None,
        typer.Option(
            "--vision/--no-vision",
            help="Count the towers for images and sound. Default: if the runtime loads them by itself.",
            show_default=False,
        ),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Drafter to count: a published one (12B-it-assistant), a folder, .gguf file or repository. Default: "
            "the one in the folder, if the runtime loads it by itself; none: no drafter.",
        ),
    ] = None,
    gpus: Annotated[
        list[str] | None,
        typer.Option(
            "--gpu",
            metavar="NAME",
            help="Card to fit: 4090, 2x3090, 'm4 max 64gb', 24GB or auto; can be repeated. '4090 + 3060' is two cards "
            "that share a model. Without MODEL: what to run on it, the best first.",
        ),
    ] = None,
    offload: Annotated[
        bool, typer.Option("--offload", help="Put what has no room on the card into main memory (llama.cpp).")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Show the publisher's own figures and the exact ones.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw memory against context into an .svg or .png file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing plot.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the totals in bytes, one per line")] = False,
) -> None:
    """Estimate the memory a model needs, and which cards it fits.

    For llama.cpp, weights, cache and compute buffer are what its own allocator gives them, all layers on the GPU.
    """
    from gemmaq.cli.views import estimate_vram as views
    from gemmaq.cli.views import published_vram, running, unsupported

    if published:
        if models or every or quants or contexts or draft or gpus or plot or offload:
            raise UsageError("--published prints one fixed set of tables", "leave out everything but --json")
        published_vram.published(as_json)
        return
    if every and models:
        raise UsageError("--all means every published size", "leave it out, or the models")
    runtime = vram.find(engine)
    groups = _groups(gpus or [])
    together = offload or any(len(group) > 1 for group in groups)
    if together and (not models or not groups or plot):
        raise UsageError(
            "--offload and cards that share a model need a model and a --gpu, and draw no plot",
            "name them: gemmaq estimate-vram 27b --gpu 12GB --offload",
        )
    ranks = bool(groups) and not models and plot is None
    drafter = None if draft is None or draft.lower() == "none" else _drafter(draft, runtime)
    if drafter is not None and not models:
        raise UsageError("--draft is for a model that is named", "name the model that it proposes tokens for")
    if plot is not None:
        from gemmaq.charts import lines as charts

        charts.check(plot)
    load = vram.Load(
        context=1,
        kv_types=_kv_types(kv_type or runtime.kv_default),
        parallel=parallel,
        ubatch=ubatch,
        flash_attention=flash_attention,
        swa_full=swa_full,
        unified=unified,
    )
    request = _Request(
        engine=runtime,
        quants=_quants(quants) or (list(runtime.quants) if ranks else None),
        embeddings=embeddings,
        contexts=contexts,
        load=load,
        vision=vision,
        drafter=drafter,
        seeks_drafter=draft is None and runtime.drafts_by_default,
        cards=[] if together else [card for group in groups for card in group],
        all_sizes=not models,
    )
    published_sizes = sizes() if every else TODAY.sizes
    names = every_gguf(models) if models else [size.name for size in published_sizes]
    output = Output("estimate-vram", as_json, quiet)
    try:
        results = [result for name in names for result in _results(name, request)]
    except UnsupportedModelError as error:
        if len(names) > 1:
            raise
        unsupported.emit(names[0], error, output)
        return
    if not results:
        raise UsageError(
            "no published size has so long a context", f"contexts: {', '.join(map(str, request.contexts or ()))}"
        )
    if ranks:
        return running.emit_ranking(output, results)
    if together:
        return running.emit_placements(output, results, groups, offload=offload)
    if plot is not None:
        views.draw(plot, results, request.cards, force=force)
    output.emit(
        lambda: {"estimates": [views.entry(result) for result in results]},
        essential=lambda: [str(result.estimate.total) for result in results],
        show=lambda: views.show(results, headlines=request.all_sizes),
    )
    if plot is not None and not quiet:
        console.say(f"written: {plot}")


@dataclass(frozen=True, slots=True)
class _Request:
    """Everything that was asked for but the models; `all_sizes` if none was named.

    A drafter beside a model is loaded with it if `seeks_drafter`.
    """

    engine: Engine
    quants: list[str] | None
    embeddings: list[str] | None
    contexts: list[int] | None
    load: Load
    vision: bool | None
    drafter: Checkpoint | None
    seeks_drafter: bool
    cards: list[Card]
    all_sizes: bool


def _kv_types(text: str) -> tuple[str, str]:
    k, _, v = text.lower().partition(",")
    return k.strip(), v.strip() or k.strip()


def _groups(names: list[str]) -> list[list[Card]]:
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


def _results(name: str, request: _Request) -> Iterator[Result]:
    """Results of one model in every type and context."""
    from gemmaq import containers
    from gemmaq.vram import fit
    from gemmaq.vram.weights import builds

    checkpoint = _with_drafter(_open(name, drafts=request.seeks_drafter), request)
    for note in checkpoint.remarks:
        console.note(note)
    target = containers.writer(request.engine.container).FORMAT
    others = builds(checkpoint, target, request.engine.quants, request.embeddings) if request.cards else []
    chosen = builds(checkpoint, target, request.quants, request.embeddings)
    if chosen[0].model.encoder and not request.engine.encodes:
        weights = ", ".join(f"{build.quant} {console.size(build.model.weights)}" for build in chosen)
        raise UsageError(
            f"{checkpoint.name} turns texts into vectors; of its memory in {request.engine.title} only the weights are "
            f"known: {weights}",
            "take llama.cpp: --engine llama.cpp",
        )
    longest = vram.longest(chosen[0].model, request.load)
    contexts = request.contexts or [min(_CONTEXT, longest)]
    if request.all_sizes:
        for context in contexts:
            if context > longest:
                console.warn(f"{checkpoint.name} is left out at {context} tokens, its context ends at {longest}")
        contexts = [context for context in contexts if context <= longest]
    for build in chosen:
        for context in contexts:
            load = replace(request.load, context=context, vision=_loads_vision(request, checkpoint, build))
            yield fit.result(request.engine, build, load, cards=request.cards, others=others)


def _loads_vision(request: _Request, checkpoint: Checkpoint, build: Build) -> bool:
    """Whether towers are loaded: as asked for, else if the engine does or an mmproj file is in the folder."""
    has_vision = build.model.towers_config is not None
    if request.vision is not None:
        return request.vision and (has_vision or not request.all_sizes)
    has_mmproj = request.engine.supports_vision and request.engine.container == checkpoint.format == "gguf"
    return has_vision and (request.engine.vision_by_default or has_mmproj)


def _with_drafter(checkpoint: Checkpoint, request: _Request) -> Checkpoint:
    """A model with the drafter that was asked for."""
    from gemmaq.checkpoint.drafters import with_drafter

    if checkpoint.family.drafts:
        raise UsageError(
            f"{checkpoint.name} is a {checkpoint.family.title}: it runs beside its target alone",
            f"name the target, and the drafter behind it: --draft {checkpoint.location}",
        )
    return checkpoint if request.drafter is None else with_drafter(checkpoint, request.drafter)


def _drafter(name: str, engine: Engine) -> Checkpoint:
    vram.require_drafts(engine)
    checkpoint = _open(name, drafters())
    for note in checkpoint.remarks:
        console.note(note)
    return checkpoint


def _open(model: str, published: Sequence[Size] = (), *, drafts: bool = False) -> Checkpoint:
    """Open a source, or a published size.

    Args:
        model: What the user typed.
        published: Sizes to tell where there is no such size, all models if not given.
        drafts: Whether to take the drafter beside a model.
    """
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
        return open_source(model, Wish(drafter=Need.DECIDED if drafts else Need.NONE))
    return checkpoint_of(require_size(model, published))


def _quants(values: list[str] | None) -> list[str] | None:
    """The types of `--quant`, each once; None without any."""
    names = listed_values("--quant", values)
    twice = next((name for name in names if [*map(str.lower, names)].count(name.lower()) > 1), None)
    if twice is not None:
        raise UsageError(f"--quant has {twice.upper()} twice", "give every type once")
    return names or None
