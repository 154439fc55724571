"""`gemmaq estimate-vram`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gemmaq import vram
from gemmaq.cli import calibration, console, estimated, tasks
from gemmaq.cli.console import Output
from gemmaq.cli.options import (
    Base,
    Json,
    WeightFile,
    byte_count,
    count,
    counts,
    every_gguf,
    listed_values,
    quiet_option,
)
from gemmaq.errors import UnsupportedModelError, UsageError
from gemmaq.models.families import TODAY, sizes

_SIZES = f"{TODAY.sizes[0].label}, {TODAY.sizes[-1].name}"


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
            "--embedding",
            metavar="TYPE",
            help="Type of the embedding; several with commas between, or the option repeated. Default: as in convert.",
        ),
    ] = None,
    contexts: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            metavar="N",
            help="Tokens of context, as in 8192 or 32k; several with commas between, or the option repeated. "
            f"Default: {estimated.CONTEXT}, or the longest.",
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
    parallel: Annotated[int, typer.Option(metavar="N", parser=count(1), help="Sequences that run at a time.")] = 1,
    ubatch: Annotated[
        int | None,
        typer.Option(metavar="N", parser=count(1), help="Tokens that are computed at a time. Default: the runtime's."),
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
            help="Card to fit: 4090, 2x3090, 'm4 max 64gb', 24GB or auto; list shows those that it knows. Can be "
            "repeated; '4090 + 3060' is two cards that share a model. Without MODEL: what to run on them, the best "
            "first.",
        ),
    ] = None,
    offload: Annotated[
        bool, typer.Option("--offload", help="Put what has no room on the card into main memory (llama.cpp).")
    ] = False,
    ram: Annotated[
        str | None,
        typer.Option("--ram", metavar="SIZE", help="For --offload: main memory that there is, 32G for example."),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="What to count: run, the model in a runtime; gptq, convert --method gptq; qat, training. Of the last "
            "two, main memory.",
        ),
    ] = tasks.RUN,
    calibration_tokens: calibration.Tokens = None,
    published: Annotated[
        bool, typer.Option("--published", help="Show the publisher's own figures and the exact ones.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw memory against context into an .svg or .png file.")
    ] = None,
    weights: WeightFile = None,
    base: Base = None,
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
        if models or every or quants or contexts or draft or gpus or plot or offload or ram or task != tasks.RUN:
            raise UsageError("--published prints one fixed set of tables", "leave out everything but --json")
        published_vram.published(as_json)
        return
    if every and models:
        raise UsageError("--all means every published size", "leave it out, or the models")
    if base is not None and len(models or ()) != 1:
        raise UsageError("--base is for one MODEL, an adapter", "name that adapter alone")
    if weights is not None and len(models or ()) != 1:
        raise UsageError("--weights is for one MODEL, a folder or repository", "name that model alone")
    output = Output("estimate-vram", as_json, quiet)
    if "list" in map(str.lower, gpus or ()):
        running.emit_cards(output)
        return
    lengths = counts("--context", contexts, 0)
    published_sizes = sizes() if every else TODAY.sizes
    names = every_gguf(models) if models else [size.name for size in published_sizes]
    if task.lower() != tasks.RUN:
        running_only = {
            "--quant": quants, "--embedding": embeddings, "--kv-type": kv_type, "--parallel": parallel != 1,
            "--engine": engine != "llama.cpp", "--ubatch": ubatch, "--no-flash-attn": not flash_attention,
            "--swa-full": swa_full is not None, "--kv-unified": unified is not None, "--vision": vision is not None,
            "--draft": draft, "--gpu": gpus, "--offload": offload, "--ram": ram, "--plot": plot,
            "--context": lengths and (task.lower() != tasks.QAT or len(lengths) > 1),
            "--calibration-tokens": task.lower() == tasks.QAT and calibration.flags({"tokens": calibration_tokens}),
        }  # fmt: skip
        tasks.check(task.lower(), running_only)
        context = lengths[0] if lengths else None
        tasks.emit(
            task.lower(), names, output, tokens=calibration_tokens, context=context, every=not models, weights=weights
        )
        return
    if calibration.flags({"tokens": calibration_tokens}):
        raise UsageError("--calibration-tokens is for --task gptq", "leave it out, or add --task gptq")
    if ram is not None and not offload:
        raise UsageError("--ram is for --offload", "add --offload, or leave it out")
    memory = byte_count("--ram", ram) if ram is not None else None
    runtime = vram.find(engine)
    groups = estimated.groups(gpus or [])
    together = offload or any(len(group) > 1 for group in groups)
    if offload and (not models or not groups):
        raise UsageError(
            "--offload needs a model and a --gpu", "name them: gemmaq estimate-vram 27b --gpu 12GB --offload"
        )
    if together and plot:
        raise UsageError("--plot draws no --offload, and no cards that share a model", "leave one of them out")
    ranks = bool(groups) and not models and plot is None
    drafter = None if draft is None or draft.lower() == "none" else estimated.drafter(draft, runtime)
    if drafter is not None and not models:
        raise UsageError("--draft is for a model that is named", "name the model that it proposes tokens for")
    if plot is not None:
        from gemmaq.charts import lines as charts

        charts.check(plot)
    load = vram.Load(
        context=1,
        kv_types=vram.kv_types(kv_type or runtime.kv_default),
        parallel=parallel,
        ubatch=ubatch,
        flash_attention=flash_attention,
        swa_full=swa_full,
        unified=unified,
    )
    request = estimated.Request(
        engine=runtime,
        quants=_quants(quants) or (list(runtime.quants) if ranks else None),
        embeddings=listed_values("--embedding", embeddings) or None,
        contexts=lengths,
        load=load,
        vision=vision,
        drafter=drafter,
        seeks_drafter=draft is None and runtime.drafts_by_default,
        groups=groups if ranks or not together else [],
        all_sizes=not models,
        weights=weights,
        base=base,
    )
    try:
        results = [result for name in names for result in estimated.results(name, request)]
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
        return running.emit_ranking(output, results, groups)
    if together:
        return running.emit_placements(output, results, groups, offload=offload, memory=memory)
    if plot is not None:
        views.draw(plot, results, [card for group in groups for card in group], force=force)
    output.emit(
        lambda: {"estimates": [views.entry(result) for result in results]},
        essential=lambda: [str(result.estimate.total) for result in results],
        show=lambda: views.show(results, headlines=request.all_sizes),
    )
    if plot is not None and not quiet:
        console.say(f"written: {plot}")


def _quants(values: list[str] | None) -> list[str] | None:
    """The types of `--quant`, each once; None without any."""
    names = listed_values("--quant", values)
    twice = next((name for name in names if [*map(str.lower, names)].count(name.lower()) > 1), None)
    if twice is not None:
        raise UsageError(f"--quant has {twice.upper()} twice", "give every type once")
    return names or None
