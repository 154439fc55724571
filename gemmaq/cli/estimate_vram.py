"""`gemmaq estimate-vram`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemmaq.cli import console
from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.vram import Engine, Estimate, Load
    from gemmaq.vram.cards import Card
    from gemmaq.vram.fit import Fit
    from gemmaq.vram.weights import Build


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the answer: a model in one type at one context, and how it fits every card."""

    engine: Engine
    build: Build
    load: Load
    estimate: Estimate
    fits: tuple[Fit, ...]


def estimate_vram(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Sizes (27b, gemma-3-27b), folders or .gguf files. Default: all sizes."),
    ] = None,
    quants: Annotated[
        list[str] | None,
        typer.Option(
            "--quant",
            metavar="TYPE",
            help="Type, again for more. Default: what a quantized file holds, for anything else bf16 and q4_0.",
        ),
    ] = None,
    embeddings: Annotated[
        list[str] | None,
        typer.Option("--embedding", metavar="TYPE", help="Type of the embedding, again for more. Default: as convert."),
    ] = None,
    contexts: Annotated[
        list[int] | None, typer.Option("--context", metavar="N", help="Tokens, again for more. Default: 8192.")
    ] = None,
    kv_type: Annotated[
        str | None,
        typer.Option("--kv-type", metavar="K[,V]", help="Type of the KV cache, or of K and of V. Default: 16 bits."),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(metavar="NAME", help="llama.cpp, libllama, ollama, lmstudio, mlx, transformers or vllm."),
    ] = "llama.cpp",
    parallel: Annotated[int, typer.Option(metavar="N", help="Sequences at a time.")] = 1,
    ubatch: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens computed at a time. Default: the engine's.")
    ] = None,
    flash_attention: Annotated[
        bool, typer.Option("--flash-attn/--no-flash-attn", help="Attention without storing its scores.")
    ] = True,
    swa_full: Annotated[
        bool | None,
        typer.Option(
            "--swa-full/--no-swa-full", help="The whole context in sliding-window layers too.", show_default=False
        ),
    ] = None,
    unified: Annotated[
        bool | None,
        typer.Option("--kv-unified/--no-kv-unified", help="One cache for all sequences.", show_default=False),
    ] = None,
    vision: Annotated[
        bool | None,
        typer.Option(
            "--vision/--no-vision",
            help="Count the vision side. Default: where the engine loads it.",
            show_default=False,
        ),
    ] = None,
    gpus: Annotated[
        list[str] | None,
        typer.Option("--gpu", metavar="NAME", help="4090, 2x3090, 'm4 max 64gb', 24GB, or auto; again for more."),
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Google's own figures beside the exact ones.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw memory against context as .svg or .png.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing plot.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the totals in bytes, one a line.")] = False,
) -> None:
    """Say how much memory a model takes in a runtime, part by part, and which cards it fits.

    Weights, cache and compute buffer of llama.cpp are those of its own allocator, all layers on the GPU.
    """
    from gemmaq.cli.views import estimate_vram as views

    if published:
        if models or quants or contexts or gpus or plot:
            raise UsageError("--published prints one fixed table", "leave out everything but --json")
        views.published(as_json)
        return
    from gemmaq import vram

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
    cards = _cards(gpus or [])
    wanted = _Wanted(runtime, quants, embeddings, contexts or [8192], load, vision, cards, everything=not models)
    results = [result for model in models or _all_sizes() for result in _results(model, wanted)]
    if not results:
        raise UsageError("no size of Gemma 3 can do that", f"contexts: {', '.join(map(str, wanted.contexts))}")
    if plot is not None:
        views.draw(plot, results, cards, force)
    if as_json:
        console.emit_json("estimate-vram", {"estimates": [views.entry(result) for result in results]})
    elif quiet:
        for result in results:
            console.out(str(result.estimate.total))
    else:
        views.show(results, headlines=wanted.everything)
    if plot is not None and not quiet:
        console.say(f"drawn: {plot}")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked of every model; `everything` if none was named."""

    engine: Engine
    quants: list[str] | None
    embeddings: list[str] | None
    contexts: list[int]
    load: Load
    vision: bool | None
    cards: list[Card]
    everything: bool


def _all_sizes() -> list[str]:
    from gemmaq.models.families import sizes

    return [size.name for size in sizes()]


def _kv_types(text: str) -> tuple[str, str]:
    k, _, v = text.lower().partition(",")
    return k.strip(), v.strip() or k.strip()


def _cards(names: list[str]) -> list[Card]:
    from gemmaq.vram import cards, detect

    found: list[Card] = []
    for name in names:
        if name.lower() != "auto":
            found.append(cards.find(name))
            continue
        here = detect.cards()
        if not here:
            console.warn("no card found by nvidia-smi, rocm-smi or sysctl; name one with --gpu")
        found += here
    return found


def _results(name: str, wanted: _Wanted) -> Iterator[Result]:
    """Every type and context of one model."""
    from gemmaq import containers, vram
    from gemmaq.vram.fit import fit
    from gemmaq.vram.weights import builds

    checkpoint = _open(name)
    for note in checkpoint.notes:
        console.warn(note)
    target = containers.writer(wanted.engine.container).FORMAT
    others = builds(checkpoint, target, wanted.engine.quants, wanted.embeddings) if wanted.cards else []
    chosen = builds(checkpoint, target, wanted.quants, wanted.embeddings)
    longest = vram.longest(chosen[0].model, wanted.load)
    for context in wanted.contexts if wanted.everything else ():
        if context > longest:
            console.warn(f"{checkpoint.name} is left out at {context} tokens, its context ends at {longest}")
    contexts = [context for context in wanted.contexts if context <= longest or not wanted.everything]
    for build in chosen:
        for context in contexts:
            load = replace(wanted.load, context=context, vision=_sees(wanted, checkpoint, build))
            estimate = vram.estimate(wanted.engine, build.model, load)
            fits = tuple(fit(wanted.engine, build, load, card, others) for card in wanted.cards)
            yield Result(wanted.engine, build, load, estimate, fits)


def _sees(wanted: _Wanted, checkpoint: Checkpoint, build: Build) -> bool:
    """Whether the vision side is loaded: as asked for, else by the engine itself or since its mmproj lies there."""
    has = bool(build.model.vision)
    if wanted.vision is not None:
        return wanted.vision and (has or not wanted.everything)
    beside = wanted.engine.container == checkpoint.format == "gguf"
    return has and (bool(wanted.engine.sees) or beside)


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
