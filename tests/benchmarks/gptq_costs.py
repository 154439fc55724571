"""What method gptq takes for models of published sizes, by one process and by several: time, memory, disk and traffic.

    python tests/benchmarks/gptq_costs.py [--measure WORK_FOLDER | --gflops 274] [--tokens 32768] [--processes 1,4,8]

With --measure, the rate of this machine is measured first, on single layers of full size with made-up weights. Figures
of the table are calculated: the arithmetic from the dimensions, hours from arithmetic and rate, and memory, disk and
traffic by the formulas of gemmaq.calibration. Each process is taken to be as fast as this machine.

Measured in November 2026 on two cores: 274 GFLOP/s with the 4B's dimensions, the default, and 302 with the 12B's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from gptq_memory import shortened, source
from rich import print as show
from rich.table import Table
from timing import load

from gemmaq.calibration import PROGRAM, memory, traffic
from gemmaq.calibration.resume import bytes_kept
from gemmaq.calibration.shares import Piece, shared_out, solving
from gemmaq.models.config import Layer, TextConfig
from gemmaq.models.families import require_size
from synthetic import full_size

SIZES = ("3-4b", "3-12b", "3-27b", "4-26B-A4B", "4-31B")
MEASURED = {"4b": 2, "12b": 1}
"""Size -> layers to measure."""
SWEEPS = 2
BITS = 4.5


def passing(layer: Layer, hidden: int, tokens: int) -> float:
    """Multiplications and additions of a pass of tokens through a layer, and of the Hessians of its inputs."""
    attention = 2 * hidden * (layer.query_width + layer.kv_width)
    widths = [hidden, layer.query_width, hidden, layer.ffn]
    weights, squares = attention + 3 * hidden * layer.ffn, sum(width**2 for width in widths)
    if layer.experts is not None:
        weights += 3 * hidden * layer.experts.ffn * layer.experts.active
        squares += layer.experts.active * (hidden**2 + layer.experts.ffn**2)
    return tokens * (weights + squares / 2)


def pieces(layer: Layer, hidden: int, processes: int) -> list[Piece]:
    """The matrices of a layer as work to share out: rows of matrices, and whole experts."""
    query, kv = layer.query_width, layer.kv_width
    shapes = [(query, hidden, "qkv"), (kv, hidden, "qkv"), (kv, hidden, "qkv"), (hidden, query, "o")]
    shapes += [(layer.ffn, hidden, "up"), (layer.ffn, hidden, "up"), (hidden, layer.ffn, "down")]
    found = [
        solving(rows // processes, columns, group, SWEEPS) for rows, columns, group in shapes for _ in range(processes)
    ]
    if layer.experts is not None:
        for number in range(layer.experts.count):
            found.append(solving(2 * layer.experts.ffn, hidden, f"up {number}", SWEEPS))
            found.append(solving(hidden, layer.experts.ffn, f"down {number}", SWEEPS))
    return found


def solved(work: list[Piece], processes: int) -> float:
    """Multiplications and additions of the process that has the most to solve."""
    taken, most = shared_out(work, processes), 0.0
    for rank in range(processes):
        mine = [piece for piece, owner in zip(work, taken, strict=True) if owner == rank]
        prepared = {piece.group: piece.preparation for piece in mine}
        most = max(most, sum(piece.cost for piece in mine) + sum(prepared.values()))
    return most


def arithmetic(config: TextConfig, tokens: int, processes: int) -> float:
    """Floating-point operations of the process that has the most to do; the head is not solved."""
    total = 0.0
    for layer in config.layers:
        total += passing(layer, config.hidden_size, -(-tokens // processes))
        total += solved(pieces(layer, config.hidden_size, processes), processes)
    return 2 * total


def measured(work: Path, label: str, tokens: int) -> float:
    """Operations per second of this machine, from layers of a size."""
    config = shortened(full_size(label), MEASURED[label])
    words = ["convert", source(work, label, config), "--method", "gptq", "--embedding", "bf16", "--sweeps", SWEEPS]
    words += ["--calibration-tokens", tokens, "--force", "--json", "-o", work / "out"]
    command = [sys.executable, "-m", "gemmaq", *map(str, words)]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    rate: float = arithmetic(config, tokens, 1) / report["seconds"]
    print(f"{label}, {MEASURED[label]} layers: {report['seconds']:.0f} s, {rate / 1e9:.0f} GFLOP/s, {load()}")
    return rate


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--measure", type=Path)
    options.add_argument("--gflops", type=float, default=274)
    options.add_argument("--tokens", type=int, default=32768)
    options.add_argument("--processes", default="1,4,8")
    asked = options.parse_args()
    rate = asked.gflops * 1e9
    if asked.measure is not None:
        rate = min(measured(asked.measure, label, 8192) for label in MEASURED)
    cores = len(os.sched_getaffinity(0))
    table = Table(
        title=f"method gptq, {asked.tokens:,} tokens, calculated for {rate / 1e9:.0f} GFLOP/s ({cores} cores)"
    )
    for column in ("model", "of", "hours", "PFLOP of each", "memory of each, GB", "disk, GB", "traffic, GB"):
        table.add_column(column, justify="right")
    for name in SIZES:
        config = require_size(f"gemma-{name}").config
        codes = int(sum(config.layer_parameters) * BITS / 8)
        disk = bytes_kept(config, asked.tokens, codes)
        for processes in map(int, asked.processes.split(",")):
            work = arithmetic(config, asked.tokens, processes)
            sent = traffic(config, asked.tokens, processes, resume=True) + (codes if processes > 1 else 0)
            held = memory(config, asked.tokens, processes) + PROGRAM
            figures = (work / 1e15, held / 1e9, disk / 1e9, sent / 1e9)
            row = (
                f"{work / rate / 3600:.1f}",
                *(f"{figure:.2f}" if figure < 1 else f"{figure:.1f}" for figure in figures),
            )
            table.add_row(name, str(processes), *row)
    show(table)


if __name__ == "__main__":
    main()
