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
from gemmaq.cli.views import convert as convert_views
from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.planning.recipe import Recipe
    from gemmaq.planning.request import Request

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def convert(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder (Hugging Face, MLX or compressed-tensors), a .gguf file, or sample:gemma-3-270m.",
        ),
    ],
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to", metavar="CONTAINER", help="Container, again for more: gguf mlx safetensors. Default: gguf."
        ),
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option(
            "--quant",
            metavar="TYPE",
            envvar="GEMMAQ_QUANT",
            help="Type of the matrices: f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1, for gguf also iq4_nl q4_k q5_k q6_k "
            "and llama.cpp's mixtures q4_k_s q4_k_m q5_k_s q5_k_m, for mlx also affine4 affine8 affine4-g64 "
            "affine8-g64, or auto: what a quantized source has. Default: q4_0.",
        ),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(
            "--embedding",
            metavar="TYPE",
            envvar="GEMMAQ_EMBEDDING",
            help="Type of the embedding. Default for a quantized body: q6_k or q8_0 in gguf, q8_0 in mlx, bf16 in "
            "safetensors.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="METHOD",
            envvar="GEMMAQ_METHOD",
            help="How codes are chosen: nearest; lattice (recover the grid of a QAT checkpoint); importance and gptq "
            "(calibrated on text, the better methods for other checkpoints); or auto: lattice for tensors that lie on "
            "a grid, else nearest. Default: auto.",
        ),
    ] = None,
    portable: Annotated[
        bool, typer.Option("--portable", help="Choose scales that every container holds: one model everywhere.")
    ] = False,
    scales: Annotated[
        str,
        typer.Option(
            "--scales",
            metavar="TYPE",
            help="Type of the scales in mlx and safetensors: bf16, or f16, which holds those of any GGUF exactly but "
            "makes MLX compute in float32 and is rounded by vLLM.",
        ),
    ] = "bf16",
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar="NAME|FILE", envvar="GEMMAQ_RECIPE", help="A shipped recipe's name, or a .toml file."
        ),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option("--imatrix", metavar="FILE", help="Importance matrix for method importance, of llama.cpp's kind."),
    ] = None,
    text: calibration.Texts = None,
    calibration_tokens: calibration.Tokens = None,
    calibration_context: calibration.Context = None,
    damping: Annotated[
        float | None,
        typer.Option(
            "--damping",
            metavar="SHARE",
            help="Of method gptq: added to the Hessian's diagonal, as a share of its mean. Default: 0.01.",
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            "--order",
            metavar="ORDER",
            help="Of method gptq: importance, groups of columns with the largest inputs first, or columns, as they "
            "lie. Default: importance.",
        ),
    ] = None,
    device: Device = None,
    mmproj: Annotated[
        str,
        typer.Option(
            "--mmproj",
            metavar="TYPE",
            help="Type of the vision side in gguf, a file of its own: f16, bf16 or f32 (mlx and safetensors have it in "
            "bf16); none leaves it out everywhere.",
        ),
    ] = "f16",
    max_shard_size: Annotated[
        str | None,
        typer.Option("--max-shard-size", metavar="SIZE", help="Split into files of at most this size: 2G, 500M, 4GiB."),
    ] = None,
    threads: Threads = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder to make. Default: ./MODEL-TYPE-CONTAINER."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier artifact.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, to the byte.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, quiet_option("the artifacts' paths, one a line")] = False,
) -> None:
    """Quantize a model into GGUF, MLX or safetensors files."""
    from gemmaq.convert.layout import lay_out
    from gemmaq.convert.run import Conversion, Options, prepare, run
    from gemmaq.planning.request import Request

    started = time.monotonic()
    limit = _bytes(max_shard_size)
    if scales.lower() not in ("bf16", "f16"):
        raise UsageError(f"unknown type of scales {scales!r}", "known: bf16, f16")
    asked = _recipe(quant, embedding, method, recipe)
    settings = {"tokens": calibration_tokens, "context": calibration_context, "damping": damping, "order": order}
    basis = calibration.read(asked, text, imatrix, settings)
    names = _containers(to, recipe)
    request = Request(
        asked, names, portable, scales.lower(), _mmproj(mmproj), limit, basis.calibration if basis else None
    )
    shown = Output("convert", as_json, quiet)
    checkpoint = opened(source, dry_run, shown.silent)
    folder = output or _folder(checkpoint, request)
    conversion = Conversion(checkpoint, request, folder, basis)
    prepared = prepare(conversion, force=force, dry_run=dry_run)
    for warning in prepared.warnings:
        console.warn(warning)
    if basis is not None:
        shown.say(calibration.described(checkpoint, prepared.plans, basis))
    if dry_run:
        artifacts, outcomes = lay_out(checkpoint, prepared.plans, request, folder), None
    else:
        with console.progress(None, shown.silent) as progress:
            result = run(conversion, prepared.plans, Options(threads or cores(), device, force), progress)
        artifacts, outcomes = result.artifacts, result.outcomes
        for artifact in artifacts:
            convert_views.warn_rounded(artifact.plan, result.outcomes)
    seconds = None if dry_run else time.monotonic() - started
    grids = prepared.fits

    def document() -> dict[str, Any]:
        report = convert_views.report(
            source, checkpoint, artifacts, counter=outcomes, warnings=prepared.warnings, seconds=seconds
        )
        return report | ({"grid": convert_views.grid(grids)} if grids else {})

    shown.emit(
        document,
        essential=lambda: [str(artifact.folder) for artifact in artifacts],
        show=lambda: convert_views.summarize(artifacts, grids, seconds),
    )


def _recipe(quant: str | None, embedding: str | None, method: str | None, recipe: str | None) -> Recipe:
    """Flags before what the recipe file says before the defaults."""
    from gemmaq.planning.recipe import load, of

    file = load(recipe) if recipe else None
    return of(
        quant or (file.quant if file else None) or "q4_0",
        embedding or (file.embedding if file else None),
        method or (file.method if file else None) or "auto",
        file.rules if file else (),
    )


def _mmproj(text: str) -> str | None:
    from gemmaq.planning.plan import MMPROJ

    if text.lower() not in (*MMPROJ, "none"):
        raise UsageError(f"unknown type of the vision side {text!r}", f"known: {', '.join(MMPROJ)}, none")
    return None if text.lower() == "none" else text.lower()


def _containers(to: list[str] | None, recipe: str | None) -> tuple[str, ...]:
    """Names of the containers, in the order asked for."""
    from gemmaq.planning import containers
    from gemmaq.planning.recipe import load

    names = list(to or (load(recipe).to if recipe else ()) or ("gguf",))
    return tuple(dict.fromkeys(containers.check(name) for name in names))


def _folder(checkpoint: Checkpoint, request: Request) -> Path:
    """What is made where nothing is said."""
    from gemmaq.models.identity import identify

    names = request.to if len(request.to) == 1 else ()
    return Path("-".join([identify(checkpoint.name).stem, request.recipe.label, *names]))


def _bytes(text: str | None) -> int | None:
    """`2G`, `500MB` or `4GiB` as bytes."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * _UNITS[(found[2] or "").lower()]) if found else 0
    if size < 1:
        raise UsageError(f"--max-shard-size {text!r} is not a size", "write 2G, 500M or 4GiB")
    return size
