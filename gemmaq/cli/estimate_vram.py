"""`gemmaq estimate-vram`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemmaq import vram
from gemmaq.cli import console
from gemmaq.cli.console import Output
from gemmaq.cli.options import Json, quiet_option
from gemmaq.errors import UsageError
from gemmaq.models.families import sizes

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.vram import Engine, Load
    from gemmaq.vram.cards import Card
    from gemmaq.vram.fit import Result
    from gemmaq.vram.weights import Build

_LARGEST = sizes()[-1]
_SIZES = f"{_LARGEST.label.lower()}, {_LARGEST.name}"


def estimate_vram(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help=f"Published sizes ({_SIZES}), folders, .gguf files or repositories. Default: all sizes.",
        ),
    ] = None,
    *,
    quants: Annotated[
        list[str] | None,
        typer.Option(
            "--quant",
            metavar="TYPE",
            help="Type of the weights; can be repeated. Default: that of a quantized file, else bf16 and q4_0.",
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
        typer.Option("--context", metavar="N", help="Tokens of context; can be repeated. Default: 8192."),
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
            help="Count the vision side. Default: if the runtime loads it by itself.",
            show_default=False,
        ),
    ] = None,
    gpus: Annotated[
        list[str] | None,
        typer.Option(
            "--gpu", metavar="NAME", help="Card to fit: 4090, 2x3090, 'm4 max 64gb', 24GB or auto; can be repeated."
        ),
    ] = None,
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

    if published:
        if models or quants or contexts or gpus or plot:
            raise UsageError("--published prints one fixed table", "leave out everything but --json")
        views.published(as_json)
        return
    runtime = vram.find(engine)
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
        quants=quants,
        embeddings=embeddings,
        contexts=contexts or [8192],
        load=load,
        vision=vision,
        cards=_cards(gpus or []),
        all_sizes=not models,
    )
    results = [result for model in models or (size.name for size in sizes()) for result in _results(model, request)]
    if not results:
        raise UsageError(
            "no published size has so long a context", f"contexts: {', '.join(map(str, request.contexts))}"
        )
    if plot is not None:
        views.draw(plot, results, request.cards, force=force)
    Output("estimate-vram", as_json, quiet).emit(
        lambda: {"estimates": [views.entry(result) for result in results]},
        essential=lambda: [str(result.estimate.total) for result in results],
        show=lambda: views.show(results, headlines=request.all_sizes),
    )
    if plot is not None and not quiet:
        console.say(f"written: {plot}")


@dataclass(frozen=True, slots=True)
class _Request:
    """Everything that was asked for but the models; `all_sizes` if none was named."""

    engine: Engine
    quants: list[str] | None
    embeddings: list[str] | None
    contexts: list[int]
    load: Load
    vision: bool | None
    cards: list[Card]
    all_sizes: bool


def _kv_types(text: str) -> tuple[str, str]:
    k, _, v = text.lower().partition(",")
    return k.strip(), v.strip() or k.strip()


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

    checkpoint = _open(name)
    for note in checkpoint.notes:
        console.warn(note)
    target = containers.writer(request.engine.container).FORMAT
    others = builds(checkpoint, target, request.engine.quants, request.embeddings) if request.cards else []
    chosen = builds(checkpoint, target, request.quants, request.embeddings)
    longest = vram.longest(chosen[0].model, request.load)
    contexts = request.contexts
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
    """Whether the vision side is loaded: as asked for, else if the engine does or an mmproj file is in the folder."""
    has_vision = build.model.vision_config is not None
    if request.vision is not None:
        return request.vision and (has_vision or not request.all_sizes)
    has_mmproj = request.engine.supports_vision and request.engine.container == checkpoint.format == "gguf"
    return has_vision and (request.engine.vision_by_default or has_mmproj)


def _open(model: str) -> Checkpoint:
    from gemmaq.models.families import require_size, size_by_name
    from gemmaq.sources.open import open_source
    from gemmaq.vram.weights import checkpoint_of

    size = size_by_name(model)
    if size is not None and not Path(model).exists():
        return checkpoint_of(size)
    if any(mark in model for mark in "/.:\\") or Path(model).exists():
        return open_source(model)
    return checkpoint_of(require_size(model))
