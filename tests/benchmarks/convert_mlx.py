"""The full-size synthetic 1B (2.0 GB of BF16) to MLX: gemmaq against mlx_lm.convert; and three containers against one.

    python tests/benchmarks/convert_mlx.py WORK_FOLDER [--runs 3] [--mlx-lm PATH/TO/mlx_lm.convert]

All sides run in turn, so that a machine whose speed drifts treats them alike; ratios are taken run by run. gemmaq
writes MLX's own 4-bit type with groups of 32, which is what mlx_lm.convert writes, and Q4_0. Prints a table of medians,
with CPU time and peak resident memory; digests of the source are remembered after the first round.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from timing import Cost, cost, cost_ratio, costs, load

from synthetic import full_size, write_checkpoint

GEMMAQ = [sys.executable, "-m", "gemmaq", "convert"]


def source(work: Path) -> Path:
    """The checkpoint, made where it is missing."""
    tokenizer, model = work / "tokenizer", work / "gemma-3-1b-it"
    if not model.exists():
        subprocess.check_call(
            [*GEMMAQ, "sample:gemma-3-270m", "--to", "safetensors", "--quant", "bf16", "-o", tokenizer]
        )
        write_checkpoint(model, full_size("1b"), tokenizer=tokenizer, shard_bytes=800_000_000)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mlx-lm", type=Path, default=Path(sys.executable).parent / "mlx_lm.convert")
    arguments = parser.parse_args()
    work: Path = arguments.folder
    model, out = source(work), work / "out"
    ours = [*GEMMAQ, model, "-q", "-o", out]
    theirs = [arguments.mlx_lm, "--hf-path", model, "--mlx-path", out]
    commands: dict[str, list[object]] = {
        "gemmaq --to mlx --quant affine4": [*ours, "--to", "mlx", "--quant", "affine4"],
        "gemmaq --to mlx --quant q4_0": [*ours, "--to", "mlx", "--quant", "q4_0"],
        "mlx_lm.convert, 4 bits, groups of 32": [*theirs, "-q", "--q-bits", "4", "--q-group-size", "32"],
        "gemmaq --to gguf --to mlx --to safetensors": [*ours, "--to", "gguf", "--to", "mlx", "--to", "safetensors"],
        "gemmaq --to safetensors": [*ours, "--to", "safetensors"],
    }
    found: dict[str, list[Cost]] = {name: [] for name in commands}
    for number in range(arguments.runs + 1):  # the first round warms caches and is not counted
        for name, command in commands.items():
            shutil.rmtree(out, ignore_errors=True)
            one = cost(command)
            if number:
                found[name].append(one)
    shutil.rmtree(out)
    costs(found)
    affine, q4_0, reference, three, one = found.values()
    cost_ratio("mlx_lm.convert / gemmaq affine4", reference, affine)
    cost_ratio("mlx_lm.convert / gemmaq q4_0", reference, q4_0)
    cost_ratio("three containers / MLX alone", three, q4_0)
    cost_ratio("three containers / safetensors alone", three, one)
    print(load())


if __name__ == "__main__":
    main()
