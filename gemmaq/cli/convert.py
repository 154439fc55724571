"""`gemmaq convert`."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import calibration, console
from gemmaq.cli.console import Output
from gemmaq.cli.options import Device, Json, Threads, cores, opened, quiet_option
from gemmaq.cli.views import convert as views
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import UsageError
from gemmaq.methods import AUTO, METHODS
from gemmaq.models.samples import SAMPLE
from gemmaq.planning.containers import CONTAINERS
from gemmaq.planning.mixtures import MIXTURES

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.planning.recipe import Recipe, RecipeFile
    from gemmaq.planning.request import Request

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_SCALES = ("bf16", "f16")
_IN_GGUF = " ".join(name for name, encoding in ENCODINGS.items() if encoding.ggml_type is not None)
_IN_MLX = " ".join(name for name, encoding in ENCODINGS.items() if encoding.ggml_type is None)
_MIXTURES = " ".join(name for name in MIXTURES if name not in ENCODINGS)
_METHODS = "; ".join(f"{name}: {method.title}" for name, method in METHODS.items())


def convert(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder (Hugging Face, MLX or compressed-tensors), a .gguf file, a repository org/name, or "
            f"{SAMPLE.source}.",
        ),
    ],
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to", metavar="CONTAINER", help=f"Container; can be repeated: {' '.join(CONTAINERS)}. Default: gguf."
        ),
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option(
            "--quant",
            metavar="TYPE",
            envvar="GEMMAQ_QUANT",
            help=f"Type of the layers' matrices: {_IN_GGUF}; for mlx also {_IN_MLX}; for gguf also the mixtures of "
            f"llama.cpp, {_MIXTURES}; or auto, the types of a quantized source. Not every container holds every type. "
            "Default: q4_0.",
        ),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(
            "--embedding",
            metavar="TYPE",
            envvar="GEMMAQ_EMBEDDING",
            help="Type of the embedding. Default, if the layers are quantized: q6_k or q8_0 in gguf, q8_0 in mlx, bf16 "
            "in safetensors.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="METHOD",
            envvar="GEMMAQ_METHOD",
            help=f"How codes are chosen. {_METHODS}; {AUTO}: lattice for tensors that lie on a grid, nearest for all "
            f"others. The calibrated methods, importance and gptq, are the better ones for checkpoints without QAT. "
            f"Default: {AUTO}.",
        ),
    ] = None,
    portable: Annotated[
        bool,
        typer.Option("--portable", help="Choose scales that all containers hold exactly: the same model everywhere."),
    ] = False,
    scales: Annotated[
        str,
        typer.Option(
            "--scales",
            metavar="TYPE",
            help="Type of the scales in mlx and safetensors: bf16, or f16, which holds the scales of any GGUF exactly, "
            "but makes MLX compute in float32 and is rounded by vLLM.",
        ),
    ] = "bf16",
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar="NAME|FILE", envvar="GEMMAQ_RECIPE", help="Name of a shipped recipe, or a .toml file."
        ),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option("--imatrix", metavar="FILE", help="Importance matrix for method importance, from llama.cpp too."),
    ] = None,
    text: calibration.Texts = None,
    calibration_tokens: calibration.Tokens = None,
    calibration_context: calibration.Context = None,
    damping: Annotated[
        float | None,
        typer.Option(
            "--damping",
            metavar="SHARE",
            help="For method gptq: share of its mean that is added to the Hessian's diagonal. Default: 0.01.",
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            "--order",
            metavar="ORDER",
            help="For method gptq: order of the columns. importance: groups with the largest inputs first; columns: as "
            "stored. Default: importance.",
        ),
    ] = None,
    device: Device = None,
    mmproj: Annotated[
        str,
        typer.Option(
            "--mmproj",
            metavar="TYPE",
            help="Type of the vision tensors in gguf, which get a file of their own: f16, bf16 or f32 (mlx and "
            "safetensors store them as bf16). none: leave them out of all containers.",
        ),
    ] = "f16",
    max_shard_size: Annotated[
        str | None,
        typer.Option("--max-shard-size", metavar="SIZE", help="Maximum size of a file: 2G, 500M, 4GiB."),
    ] = None,
    threads: Threads = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder to create. Default: ./MODEL-TYPE-CONTAINER."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier artifact.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would be written, to the byte.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the artifacts' paths, one a line")] = False,
) -> None:
    """Quantize a model into GGUF, MLX or safetensors files."""
    from gemmaq.convert.layout import lay_out
    from gemmaq.convert.run import Conversion, Options, prepare, run
    from gemmaq.planning import recipe as recipes
    from gemmaq.planning.request import Request

    started, shown = time.monotonic(), Output("convert", as_json, quiet)
    limit = _bytes(max_shard_size)
    if scales.lower() not in _SCALES:
        raise UsageError(f"unknown type of scales {scales!r}", f"known: {', '.join(_SCALES)}")
    file = recipes.load(recipe) if recipe else None
    chosen = _recipe(quant, embedding, method, file)
    settings = {"tokens": calibration_tokens, "context": calibration_context, "damping": damping, "order": order}
    basis = calibration.read(chosen, text, imatrix, settings)
    request = Request(
        recipe=chosen,
        to=_containers(to, file),
        portable=portable,
        scales=scales.lower(),
        mmproj=_mmproj(mmproj),
        shard_bytes=limit,
        calibration=basis.calibration if basis else None,
    )
    checkpoint = opened(source, dry_run, shown.silent)
    conversion = Conversion(checkpoint, request, output or _default_folder(checkpoint, request), basis)
    prepared = prepare(conversion, force=force, dry_run=dry_run)
    for warning in prepared.warnings:
        console.warn(warning)
    if basis is not None:
        shown.say(calibration.described(checkpoint, prepared.plans, basis))
    if dry_run:
        artifacts, outcomes = lay_out(checkpoint, prepared.plans, request, conversion.folder), None
    else:
        with console.progress(None, shown.silent) as progress:
            result = run(conversion, prepared.plans, Options(threads or cores(), device, force), progress)
        artifacts, outcomes = result.artifacts, result.outcomes
        for artifact in artifacts:
            views.warn_rounded(artifact.plan, result.outcomes)
    seconds = None if dry_run else time.monotonic() - started

    def document() -> dict[str, Any]:
        report = views.report(
            source, checkpoint, artifacts, counter=outcomes, warnings=prepared.warnings, seconds=seconds
        )
        return report | ({"grid": views.grid(prepared.fits)} if prepared.fits else {})

    shown.emit(
        document,
        essential=lambda: [str(artifact.folder) for artifact in artifacts],
        show=lambda: views.summarize(artifacts, prepared.fits, seconds),
    )


def _recipe(quant: str | None, embedding: str | None, method: str | None, file: RecipeFile | None) -> Recipe:
    """The recipe: flags before the recipe file before the defaults."""
    from gemmaq.planning.recipe import of

    return of(
        quant or (file.quant if file else None) or "q4_0",
        embedding=embedding or (file.embedding if file else None),
        method=method or (file.method if file else None) or AUTO,
        rules=file.rules if file else (),
    )


def _mmproj(text: str) -> str | None:
    """Type of the vision tensors, None to leave them out."""
    from gemmaq.planning.plan import MMPROJ

    if text.lower() not in (*MMPROJ, "none"):
        raise UsageError(f"unknown type of the vision tensors {text!r}", f"known: {', '.join(MMPROJ)}, none")
    return None if text.lower() == "none" else text.lower()


def _containers(to: list[str] | None, file: RecipeFile | None) -> tuple[str, ...]:
    """Names of the containers in order, each once: flags before the recipe file before the default."""
    from gemmaq.planning.containers import check

    names = to or (file.to if file else ()) or ("gguf",)
    return tuple(dict.fromkeys(check(name) for name in names))


def _default_folder(checkpoint: Checkpoint, request: Request) -> Path:
    from gemmaq.models.identity import identify

    names = request.to if len(request.to) == 1 else ()
    return Path("-".join([identify(checkpoint.name).stem, request.recipe.label, *names]))


def _bytes(text: str | None) -> int | None:
    """Parse `2G`, `500MB` or `4GiB`."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if size < 1:
        raise UsageError(f"--max-shard-size {text!r} is not a size", "write 2G, 500M or 4GiB")
    return size
