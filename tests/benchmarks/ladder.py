"""Eight types of a 0.9B model in one run against eight runs: CPU and wall seconds, peak memory, and the same bytes.

    python tests/benchmarks/ladder.py WORK_FOLDER [--types q8_0,q6_k,...] [--runs 1]

The model is a Gemma 3 1B with a hidden size of 1024, so that 256 divides its rows, with made-up weights.
"""

from __future__ import annotations

import argparse
import filecmp
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from timing import timed

from synthetic import full_size, write_checkpoint

GEMMAQ = [sys.executable, "-m", "gemmaq", "convert"]
TYPES = "q8_0,q6_k,q5_k_m,q5_k_s,q4_k_m,q4_k_s,q4_0,q3_k_m"


def source(work: Path) -> Path:
    """The checkpoint, made where it is missing."""
    tokenizer, model = work / "tokenizer", work / "gemma-3-wide-it"
    if not model.exists():
        command = [*GEMMAQ, "sample:gemma-3-270m", "--to", "safetensors", "--quant", "bf16", "-q", "-o", tokenizer]
        subprocess.check_call(command)
        write_checkpoint(model, replace(full_size("1b"), hidden_size=1024), tokenizer=tokenizer)
    return model


def cpu_seconds() -> float:
    """CPU seconds of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--types", default=TYPES)
    parser.add_argument("--runs", type=int, default=1)
    arguments = parser.parse_args()
    model, work = source(arguments.folder), arguments.folder
    types = arguments.types.split(",")
    for _ in range(arguments.runs):
        for name in ("single", "ladder"):
            shutil.rmtree(work / name, ignore_errors=True)
        begun = cpu_seconds()
        singles = [timed([*GEMMAQ, model, "--quant", name, "-q", "-o", work / "single" / name]) for name in types]
        middle = cpu_seconds()
        ladder = timed([*GEMMAQ, model, "--quant", arguments.types, "-q", "-o", work / "ladder"])
        ended = cpu_seconds()
        for path in (work / "ladder").glob("*.gguf"):
            (same,) = (work / "single").glob(f"*/{path.name}")
            if not filecmp.cmp(path, same, shallow=False):
                sys.exit(f"{path.name} differs")
        print(f"{'':24}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}")
        wall, peak = sum(seconds for seconds, _ in singles), max(megabytes for _, megabytes in singles)
        print(f"{len(types)} runs{'':18}{wall:8.1f}{middle - begun:8.1f}{peak:9.0f}")
        print(f"{'one run':24}{ladder[0]:8.1f}{ended - middle:8.1f}{ladder[1]:9.0f}")
        print(f"{'ratio':24}{ladder[0] / wall:8.2f}{(ended - middle) / (middle - begun):8.2f}")


if __name__ == "__main__":
    main()
