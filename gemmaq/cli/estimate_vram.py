"""`gemmaq estimate-vram`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gemmaq.cli import console
from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.vram.llama_cpp import Estimate

_MIB = 1 << 20


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
            help="Type, again for more. Default: bf16 and q4_0; for a .gguf file what it holds.",
        ),
    ] = None,
    contexts: Annotated[
        list[int] | None, typer.Option("--context", metavar="N", help="Tokens, again for more. Default: 8192.")
    ] = None,
    kv_type: Annotated[
        str, typer.Option("--kv-type", metavar="TYPE", help="KV cache: f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0.")
    ] = "f16",
    published: Annotated[bool, typer.Option("--published", help="Google's own table, by its own convention.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the totals in bytes, one a line.")] = False,
) -> None:
    """Say how much memory llama.cpp needs to run a model: weights, KV cache, compute buffer.

    Text model, one sequence, all layers on the GPU, flash attention on. The GPU driver takes about 0.5 GB more.
    """
    if published:
        if models or quants or contexts:
            raise UsageError("--published prints one fixed table", "leave out MODEL, --quant and --context")
        _published(as_json)
        return
    results = [
        (name, quant, context, estimate)
        for model in models or _all_sizes()
        for name, quant, context, estimate in _estimates(model, quants, contexts or [8192], kv_type.lower())
    ]
    if as_json:
        console.emit_json("estimate-vram", {"estimates": [_entry(*result, kv_type.lower()) for result in results]})
    elif quiet:
        for *_, estimate in results:
            console.out(str(estimate.total))
    else:
        _show(results, kv_type.lower())


def _all_sizes() -> list[str]:
    from gemmaq.gemma.sizes import SIZES

    return [size.name for size in SIZES]


def _estimates(
    model: str, quants: list[str] | None, contexts: list[int], kv_type: str
) -> list[tuple[str, str, int, Estimate]]:
    """Every quant and context of one model: name, quant, context, bytes."""
    from gemmaq.vram.llama_cpp import estimate
    from gemmaq.vram.weights import weight_bytes

    checkpoint = _open(model)
    weights = weight_bytes(checkpoint, quants)
    return [
        (checkpoint.name, quant, context, estimate(checkpoint.config, size, context, kv_type))
        for quant, size in weights.items()
        for context in contexts
    ]


def _open(model: str) -> Checkpoint:
    from gemmaq.gemma.sizes import by_name, require
    from gemmaq.sources import open_source
    from gemmaq.vram.weights import checkpoint_of

    size = by_name(model)
    if size is not None and not Path(model).exists():
        return checkpoint_of(size)
    if any(mark in model for mark in "/.:\\") or Path(model).exists():
        return open_source(model)
    return checkpoint_of(require(model))


def _entry(name: str, quant: str, context: int, estimate: Estimate, kv_type: str) -> dict[str, Any]:
    parts = {"vision": 0, "overhead": 0, **asdict(estimate), "total": estimate.total}
    order = ("weights", "vision", "kv_global", "kv_local", "compute", "overhead", "total")
    return {
        "model": name,
        "quant": quant,
        "engine": "llama.cpp",
        "context": context,
        "kv_type": kv_type,
        "bytes": {part: parts[part] for part in order},
        "gpus": [],
    }


def _show(results: list[tuple[str, str, int, Estimate]], kv_type: str) -> None:
    rows = [
        (
            name,
            quant,
            f"{context:,}",
            f"{e.weights / 1e9:.2f}",
            f"{e.kv_global / _MIB:,.1f}",
            f"{e.kv_local / _MIB:,.1f}",
            f"{e.compute / _MIB:,.1f}",
            f"{e.total / 1e9:.2f}",
            f"{e.total / (1 << 30):.2f}",
        )
        for name, quant, context, e in results
    ]
    parts = ("weights GB", "KV global MiB", "KV local MiB", "compute MiB", "total GB", "total GiB")
    columns = ("model", "type", "context", *parts)
    console.table(f"Memory in llama.cpp, text model, {kv_type} cache", columns, rows, left=2)
    console.say("One sequence, flash attention on. Add about 0.5 GB for the GPU driver.")


def _published(as_json: bool) -> None:
    from gemmaq.vram.published import COMPUTED, rows
    from gemmaq.vram.weights import checkpoint_of, weight_bytes

    table = rows()
    if as_json:
        entries = [
            {
                "model": row.size.name,
                "weights_gb": row.weights_gb,
                "weights_kv_32k_gb": row.weights_kv_32k_gb,
                "computed": list(COMPUTED),
            }
            for row in table
        ]
        console.emit_json("published-vram", {"rows": entries})
        return
    ours = [weight_bytes(checkpoint_of(row.size), ["q4_0"])["q4_0"] for row in table]
    columns = [name if name in COMPUTED else name.replace("_", " ") + "*" for name in table[0].weights_gb]
    weights = [
        (row.size.name, *(f"{gb:.1f}" for gb in row.weights_gb.values()), f"{exact:,}")
        for row, exact in zip(table, ours, strict=True)
    ]
    cached = [(row.size.name, *(f"{gb:.1f}" for gb in row.weights_kv_32k_gb.values())) for row in table]
    console.table("Google's figures: weights, GB", ("", *columns, "our Q4_0 tensors, bytes"), weights)
    console.table("Google's figures: weights and KV cache at 32K, GB*", ("", *columns), cached)
    console.say("* quoted from the Gemma 3 report; the other columns follow its formula on nominal parameters.")
    console.say("Ours are exact: real parameter counts, text model only, embedding Q8_0 (1B) or Q6_K.")
