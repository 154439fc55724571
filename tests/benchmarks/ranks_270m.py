"""Method gptq by one, two and three processes on the 270M: the same bytes, and what sharing costs and gains.

    python tests/benchmarks/ranks_270m.py WORK_FOLDER [--tokens 8192] [--processes 1,2,3] [--repeat 1]

Traffic is what the loopback interface carried meanwhile, so nothing else should use it. "Said" is what the formulas of
`gemmaq.calibration` give, with the program itself, and with the codes.

Measured in November 2026: 23, 27 and 34 seconds; 762 MB (said 976) and 1,435 (1,710); peaks of 1,040, 1,029 and 1,027
MB (1,137, 1,116, 1,085); the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich import print as show
from rich.table import Table

from gemmaq.__main__ import main as gemmaq
from gemmaq.calibration import PROGRAM, memory, traffic
from gemmaq.sources.open import open_source


def as_process(peaks: Path) -> None:
    """Run gemmaq as one of several processes, and write down its peak memory."""
    try:
        gemmaq()
    finally:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        (peaks / os.environ.get("RANK", "0")).write_text(str(peak))


def loopback() -> int:
    """Bytes that the loopback interface has carried."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


def digests(folder: Path) -> str:
    """One digest of the weights of an artifact."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.gguf")))).hexdigest()


def run(work: Path, source: Path, processes: int, tokens: int) -> tuple[float, int, list[int], str, int]:
    """Wall seconds, bytes on the interface, peak memory of each process, digest and bytes of the weights."""
    out, peaks = work / "out", work / "peaks"
    for folder in (out, peaks):
        shutil.rmtree(folder, ignore_errors=True)
    peaks.mkdir()
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    words = ["convert", source, "--method", "gptq", "--calibration-tokens", tokens, "-q", "-o", out]
    before, begun = loopback(), time.monotonic()
    subprocess.run(
        [sys.executable, *torchrun, __file__, *map(str, words)], check=True, env={**os.environ, "PEAKS": str(peaks)}
    )
    seconds, carried = time.monotonic() - begun, loopback() - before
    each = [int(path.read_text()) for path in sorted(peaks.iterdir())]
    return seconds, carried, each, digests(out), sum(path.stat().st_size for path in out.glob("*.gguf"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--tokens", type=int, default=8192)
    options.add_argument("--processes", default="1,2,3")
    options.add_argument("--repeat", type=int, default=1)
    asked = options.parse_args()
    source = asked.folder / "gemma-3-270m"
    if not source.exists():
        made = ["convert", "sample:gemma-3-270m", "--to", "safetensors", "--quant", "bf16", "-q", "-o", str(source)]
        subprocess.run([sys.executable, "-m", "gemmaq", *made], check=True)
    config = open_source(str(source)).config
    table = Table(title=f"method gptq, {asked.tokens:,} tokens, {len(os.sched_getaffinity(0))} cores")
    for column in (
        "processes",
        "seconds",
        "speed-up",
        "traffic, MB",
        "said, MB",
        "peak of each, MB",
        "said, MB",
        "bytes",
    ):
        table.add_column(column, justify="right")
    alone, first = 0.0, ""
    for processes in map(int, asked.processes.split(",")):
        runs = [run(asked.folder, source, processes, asked.tokens) for _ in range(asked.repeat)]
        seconds, (_, carried, peaks, digest, size) = statistics.median(one[0] for one in runs), runs[0]
        alone, first = alone or seconds, first or digest
        sent = traffic(config, asked.tokens, processes) + (size if processes > 1 else 0)
        held = memory(config, asked.tokens, processes) + PROGRAM
        table.add_row(
            str(processes),
            f"{seconds:.0f}",
            f"{alone / seconds:.2f}",
            *(f"{value / 1e6:.0f}" for value in (carried, sent)),
            " ".join(f"{peak / 1e6:.0f}" for peak in peaks),
            f"{held / 1e6:.0f}",
            "the same" if digest == first else "OTHERS",
        )
    show(table)


if __name__ == "__main__":
    if "PEAKS" in os.environ:
        as_process(Path(os.environ["PEAKS"]))
    else:
        main()
