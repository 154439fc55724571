"""`gemmaq convert`."""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import console
from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.containers import OutputFile
    from gemmaq.plan import Plan

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def convert(
    source: Annotated[str, typer.Argument(help="A folder with config.json, a .gguf file, or sample:gemma-3-270m.")],
    to: Annotated[str, typer.Option("--to", help="Container: gguf or safetensors.")] = "gguf",
    quant: Annotated[
        str | None,
        typer.Option(
            "--quant",
            envvar="GEMMAQ_QUANT",
            help="Type of the matrices: f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q6_k; safetensors holds the first three. "
            "Default: q4_0 for gguf, bf16 for safetensors.",
        ),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option("--embedding", help="Type of the embedding. Default for quantized types: q6_k, or q8_0."),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="How codes are chosen: nearest.")] = "nearest",
    max_shard_size: Annotated[
        str | None, typer.Option("--max-shard-size", help="Split into files of at most this size: 2G, 500M, 4GiB.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, envvar="GEMMAQ_THREADS", help="Workers.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to make. Default: ./MODEL-TYPE-CONTAINER.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier artifact.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, to the byte.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the artifact's path.")] = False,
) -> None:
    """Quantize a Gemma 3 checkpoint and write it for a runtime."""
    from gemmaq import containers, encodings, methods
    from gemmaq.convert import Artifact, write
    from gemmaq.gemma.identity import identify
    from gemmaq.plan import make_plan
    from gemmaq.recipe import Recipe
    from gemmaq.sources import open_source

    started = time.monotonic()
    limit = _bytes(max_shard_size)
    container = containers.find(to)
    methods.find(method)
    body = encodings.find(quant or ("q4_0" if container.FORMAT.name == "gguf" else "bf16"))
    recipe = Recipe(body, encodings.find(embedding) if embedding else None, method.lower())
    checkpoint = open_source(source)
    plan = make_plan(checkpoint, recipe, container.FORMAT)
    files = container.lay_out(checkpoint, plan, limit)
    folder = output or Path(f"{identify(checkpoint.name).stem}-{body.label}-{plan.format}")
    for warning in plan.warnings:
        console.warn(warning)
    if not dry_run:
        with console.progress(f"writing {folder}", quiet or as_json) as progress:
            write([Artifact(container, files, folder)], folder, threads or _cores(), progress, force)
    seconds = None if dry_run else time.monotonic() - started
    if as_json:
        console.emit_json("convert", _report(source, checkpoint, plan, files, folder, seconds))
    elif quiet:
        console.out(str(folder))
    else:
        _summarize(plan, files, folder, seconds)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bytes(text: str | None) -> int | None:
    """`2G`, `500MB` or `4GiB` as bytes."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * _UNITS[(found[2] or "").lower()]) if found else 0
    if size < 1:
        raise UsageError(f"--max-shard-size {text!r} is not a size", "write 2G, 500M or 4GiB")
    return size


def _report(
    source: str,
    checkpoint: Checkpoint,
    plan: Plan,
    files: tuple[OutputFile, ...],
    folder: Path,
    seconds: float | None,
) -> dict[str, Any]:
    from gemmaq.convert import sha256

    listed: list[dict[str, Any]] = [{"path": file.name, "bytes": file.size} for file in files]
    if seconds is not None:
        for entry in listed:
            entry["sha256"] = sha256(folder / entry["path"])
    artifact = {
        "container": plan.format,
        "path": str(folder),
        "files": listed,
        "bits_per_weight": round(plan.bits_per_weight, 4),
        "tensors": plan.counts,
    }
    report: dict[str, Any] = {
        "source": {"name": checkpoint.name, "location": source, "format": checkpoint.format},
        "artifacts": [artifact],
        "method": plan.recipe.method,
        "warnings": list(plan.warnings),
    }
    if seconds is not None:
        report |= {"seconds": round(seconds, 3), "peak_rss_bytes": _peak_rss()}
    return report


def _peak_rss() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _summarize(plan: Plan, files: tuple[OutputFile, ...], folder: Path, seconds: float | None) -> None:
    kinds = ", ".join(f"{count} {name.upper()}" for name, count in plan.counts.items())
    total = sum(file.size for file in files)
    for file in files:
        console.out(f"{folder / file.name}  {console.size(file.size)} ({file.size:,} bytes)")
    took = "nothing was written (dry run)" if seconds is None else f"{seconds:.1f} s"
    console.say(f"{console.size(total)}, {plan.bits_per_weight:.2f} bits per weight ({kinds}), {took}")
