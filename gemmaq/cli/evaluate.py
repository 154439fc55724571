"""`gemmaq evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gemmaq import __version__, vram
from gemmaq.cli import console, ranks
from gemmaq.cli.calibration import named_kinds
from gemmaq.cli.console import Output
from gemmaq.cli.options import Device, Json, Threads, check_file, cores, count, every_gguf, number, opened, quiet_option
from gemmaq.errors import UsageError, VerificationError
from gemmaq.vram.engines import llama_cpp

if TYPE_CHECKING:
    from gemmaq.artifact.measured import Place
    from gemmaq.charts.frontier import Limit
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.evaluate.chunks import Chunks
    from gemmaq.evaluate.result import Result
    from gemmaq.inference.documents import Text
    from gemmaq.inference.kv_cache import KVCache


def evaluate(
    *,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Folders (Hugging Face, MLX, AWQ and others, or of .gguf files: all of them), .gguf files or "
            "repositories.",
        ),
    ],
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="The model they are compared with, before quantization. With --kv-type, one MODEL can do without: it "
            "is compared with itself.",
        ),
    ] = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            metavar="FILE",
            help="Text to predict, plain or .jsonl of conversations; can be repeated. Default: all kinds that come "
            "with gemmaq.",
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Kind of text that comes with gemmaq, apart from what it calibrates on; scored by itself too. Can be "
            "repeated, or as in prose,code. Kinds: prose, code, chat, long, non-latin, tools.",
        ),
    ] = None,
    kv_types: Annotated[
        list[str] | None,
        typer.Option(
            "--kv-type",
            metavar="K[,V]",
            help="Type of the KV cache in llama.cpp, or one for K and one for V: keys and values of every MODEL are "
            "rounded to it, those of the reference never. Can be repeated. Types: "
            f"{', '.join(llama_cpp.KV_TYPES)}.",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with charts, complete in itself.")
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Write the results into gemmaq.json and the card of every MODEL, an artifact on disk.",
        ),
    ] = False,
    context: Annotated[
        int, typer.Option(metavar="N", parser=count(2), help="Tokens per chunk; the second half of each is scored.")
    ] = 512,
    tokens: Annotated[
        int,
        typer.Option(
            metavar="N", parser=count(1), help="Maximum number of scored tokens, spread evenly over the text."
        ),
    ] = 8192,
    max_kl: Annotated[
        float | None,
        typer.Option(
            "--max-kl",
            metavar="X",
            parser=number(0, included=True),
            help="Exit with code 8 if the mean KL divergence of a MODEL is above X nats.",
        ),
    ] = None,
    min_top1: Annotated[
        str | None,
        typer.Option(
            "--min-top1",
            metavar="SHARE",
            help="Likewise, if its likeliest token is the reference's less often: 98% or 0.98.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="For a reference that holds more than one set of weights: the file to read, as in convert. For a "
            "MODEL, name that file in place of its folder.",
        ),
    ] = None,
    device: Device = None,
    threads: Threads = None,
    cached: Annotated[
        bool,
        typer.Option(
            "--cache/--no-cache", help="Keep what the reference computes for the next time, in $GEMMAQ_CACHE."
        ),
    ] = True,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep what models compute, layer by layer, in $GEMMAQ_CACHE until the end: the same command goes on "
            "there after an interruption.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing report.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be scored.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("perplexity and mean KL, a line for each model")] = False,
) -> None:
    """Measure how much quality a quantization costs.

    Every model is compared with a reference on the same text: perplexity, KL divergence of its predictions from the
    reference's, and how often both predict the same token. Text is cut into chunks as llama-perplexity does it, so
    that perplexities are comparable. Weights are decoded to float32 before they are used.

    What the type of the KV cache costs: gemmaq evaluate MODEL --kv-type q8_0 --kv-type q4_0
    """
    from gemmaq.artifact import measured
    from gemmaq.calibration.resources import Resources, agree
    from gemmaq.cli.views import evaluate as views
    from gemmaq.evaluate import cache, run
    from gemmaq.evaluate.chunks import check_lengths
    from gemmaq.evaluate.gate import gate
    from gemmaq.evaluate.report import Page, render
    from gemmaq.evaluate.result import results, weight_errors
    from gemmaq.files.atomic import write_file
    from gemmaq.inference.device import open_device, require_torch
    from gemmaq.inference.documents import KINDS, read

    console.waiting.doing("loading torch")
    require_torch("evaluate")
    peers = ranks.join(device)
    shown = Output("evaluate", as_json, quiet, peers.main)
    check_lengths(context, tokens)
    limits = gate(max_kl, min_top1)
    caches = _caches(kv_types or ())
    if record and kv_types:
        raise UsageError(
            "--record is about the weights of a model, not about a KV cache, which is chosen where it runs",
            "leave out --record or --kv-type",
        )
    if report is not None and peers.main:
        check_file(report, force)
    models = every_gguf(models)
    if reference is None:
        reference = _itself(models, kv_types or ())
    places = [measured.place(model) for model in models] if record else []
    text = read(texts or (), named_kinds(kind) or (() if texts else KINDS), held_out=True)
    compared = [(model, kv_cache) for model in models for kv_cache in caches]
    sources = [reference, *(model for model, _ in compared)]
    kinds = ["", *("" if kv_cache is None else kv_cache.label for _, kv_cache in compared)]
    checkpoints = _open(sources, weights, dry_run, shown.silent)
    for checkpoint, (_, kv_cache) in zip(checkpoints[1:], compared, strict=True):
        if kv_cache is not None:
            kv_cache.check(checkpoint.config, checkpoint.name)
    chunks = _chunks(checkpoints, text, context=context, tokens=tokens)
    if dry_run:

        def show_plan() -> None:
            what = f"{len(models)} model{'s' if len(models) > 1 else ''}"
            if kv_types:
                what += f" with a KV cache in {' or '.join(dict.fromkeys(kinds[1:]))}"
            console.out(f"{what} against {reference}: {views.scored(chunks)}")
            if report is not None:
                console.out(f"{report} would be written")
            for folder in dict.fromkeys(place.folder for place in places):
                console.out(f"gemmaq.json, README.md and SHA256SUMS of {folder} would be written anew")
            console.say("nothing was computed (dry run)")

        shown.emit(
            lambda: views.plan(reference, [*zip(sources[1:], kinds[1:], strict=True)], chunks),
            essential=tuple,
            show=show_plan,
        )
        return

    workers = threads or cores()
    for checkpoint, used in zip(checkpoints, kinds, strict=True):
        agree(Resources(device, workers, peers), checkpoint, chunks.tokens, f"{len(models)} models, KV cache {used}")
    with open_device(device, workers) as computing, console.progress(None, shown.silent) as progress:
        folder = cache.default_folder() if cached else None
        scores = run.evaluate(
            checkpoints,
            chunks,
            device=computing,
            progress=progress,
            cache_folder=folder,
            work=cache.default_folder() / "unfinished" if resume else None,
            kv_caches=[None, *(kv_cache for _, kv_cache in compared)],
            peers=peers,
        )
    if not peers.main:
        return
    evaluation = results(sources, checkpoints, scores, kinds)
    if report is not None:
        with console.progress("comparing weights", shown.silent) as progress:
            errors = weight_errors(checkpoints[0], checkpoints[1:], threads=workers, progress=progress)
        rows = views.grid(evaluation)
        page = Page(evaluation, errors, chunks, text.names, __version__, rows, _cards(checkpoints[1:]))
        write_file(report, render(page).encode(), force)

    if record:
        _record(places, evaluation[1:], _public_name(reference, checkpoints[0]), texts=text.names, chunks=chunks)

    def show() -> None:
        views.table(evaluation, chunks)
        if report is not None:
            console.say(f"wrote {report}")
        for folder in dict.fromkeys(place.folder for place in places):
            console.say(f"on record in {folder}")

    missed = {model.title: limits.missed(model.score) for model in evaluation[1:]}
    shown.emit(
        lambda: views.document(evaluation, chunks, missed if limits else {}),
        essential=lambda: [f"{model.score.perplexity:.6g}\t{model.score.kl_mean:.6g}" for model in evaluation[1:]],
        show=show,
    )
    failed = {title: phrases for title, phrases in missed.items() if phrases}
    if failed:
        said = "; ".join(f"{title}: {', '.join(phrases)}" for title, phrases in failed.items())
        raise VerificationError(f"{len(failed)} of {len(missed)} models missed a limit. {said}")


def _caches(values: Sequence[str]) -> list[KVCache | None]:
    """The caches of `--kv-type`, each once; one that is None without any."""
    from gemmaq.encodings import ENCODINGS
    from gemmaq.inference.kv_cache import KVCache

    found: list[KVCache | None] = []
    for value in values:
        kinds = vram.kv_types(value)
        vram.require_kv_types(llama_cpp.ENGINE, kinds)
        found.append(KVCache(*(ENCODINGS[kind] for kind in kinds)))
        if found.index(found[-1]) < len(found) - 1:
            raise UsageError(f"--kv-type has {value} twice", "give every type once")
    return found or [None]


def _itself(models: Sequence[str], kv_types: Sequence[str]) -> str:
    """The model that stands in for a reference: the only one, where its KV cache is what differs."""
    if kv_types and len(models) == 1:
        return models[0]
    why = "one MODEL with --kv-type is compared with itself" if kv_types else "the model before quantization"
    raise UsageError("--reference is missing", f"--reference SOURCE; {why}")


def _cards(models: Sequence[Checkpoint]) -> list[Limit]:
    """What cards hold of such models, by the largest of them; nothing for models in several containers."""
    from gemmaq.artifact.description import of_checkpoint
    from gemmaq.charts.frontier import Limit
    from gemmaq.convert.memory_table import holds

    largest = max(models, key=lambda model: sum(path.stat().st_size for path in model.files))
    if len({model.format for model in models}) > 1:
        return []
    size = sum(path.stat().st_size for path in largest.files)
    described = of_checkpoint(largest, largest.files[0].parent)
    return [Limit(card, room + size - described.weights) for card, room in holds(described).items()]


def _public_name(reference: str, checkpoint: Checkpoint) -> str:
    """The repository of the reference, else its name, as paths are private."""
    from gemmaq.hub import parse

    named = None if Path(reference).exists() else parse(reference)
    return named.repo if named is not None else checkpoint.name


def _record(
    places: Sequence[Place], results: Sequence[Result], reference: str, *, texts: Sequence[str], chunks: Chunks
) -> None:
    """Put results on record in the artifacts of their models."""
    from gemmaq.artifact import measured
    from gemmaq.artifact.provenance import Quality
    from gemmaq.convert.memory_table import MEMORY

    found: dict[Path, dict[int, Quality]] = {}
    for place, result in zip(places, results, strict=True):
        score = result.score
        kl, top1, perplexity = (float(f"{value:.6g}") for value in (score.kl_mean, score.top1, score.perplexity))
        quality = Quality(reference, tuple(texts), chunks.scored, chunks.context, kl, top1, perplexity)
        found.setdefault(place.folder, {})[place.model] = quality
    for folder, qualities in found.items():
        measured.write(folder, qualities, memory=MEMORY)


def _open(sources: Sequence[str], weights: str | None, dry_run: bool, quiet: bool) -> list[Checkpoint]:
    """Open every source once, the first with the weight file that the user chose; warn of what is odd about it."""
    checkpoints: dict[str, Checkpoint] = {}
    for source in sources:
        if source not in checkpoints:
            checkpoints[source] = opened(source, dry_run, quiet, weights=None if checkpoints else weights)
            for note in checkpoints[source].remarks:
                console.note(note)
    return [checkpoints[source] for source in sources]


def _chunks(checkpoints: Sequence[Checkpoint], text: Text, *, context: int, tokens: int) -> Chunks:
    """Check the models against the reference, the first of them, and cut the text with its tokenizer."""
    from gemmaq.evaluate.chunks import cut_kinds
    from gemmaq.evaluate.run import check_model
    from gemmaq.inference.tokenize import load_encoder

    for checkpoint in checkpoints:
        check_model(checkpoint, checkpoints[0], context)
    return cut_kinds(text, load_encoder(checkpoints[0]), context=context, tokens=tokens)
