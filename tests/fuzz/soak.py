"""Converts again and again in one process, and looks for memory, file descriptors and threads that are not given back.

    python tests/fuzz/soak.py [--runs 200]

Runs take turns: containers, a ladder, an importance matrix, GPTQ, a damaged source, verification against the source.
Every eighth of the runs prints a line; memory must not grow after the first half.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import small
from inprocess import run, run_any

GROWTH = 16 << 20
"""Bytes of memory that the second half of the runs may add: what allocators keep."""
Turn = Callable[[Path, Path], None]
"""(source, folder to create) -> a run."""
TEXT = ("--calibration-tokens", "256", "--calibration-context", "64")


@dataclass(frozen=True)
class Held:
    """What the process holds: resident bytes, file descriptors, threads."""

    memory: int
    files: int
    threads: int

    @classmethod
    def now(cls) -> Held:
        """Count, once memory that the allocator keeps for later is given back, where it can be told to."""
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")), threading.active_count())


def _converted(*options: str) -> Turn:
    def convert(source: Path, out: Path) -> None:
        run("convert", source, "-o", out, "-q", *options)
        run("verify", out, "-q")

    return convert


def _refused(source: Path, out: Path) -> None:
    broken = out.with_name("broken")
    shutil.copytree(source, broken)
    os.truncate(broken / "model.safetensors", 100_000)
    run("convert", broken, "-o", out, code=3)
    shutil.rmtree(broken)


def _against(source: Path, out: Path) -> None:
    run("convert", source, "-o", out, "-q", "--to", "mlx")
    run("verify", out, "--against", source, "-q")
    assert run_any("inspect", out, "--json").code == 0


TURNS = (
    _converted("--to", "gguf", "--to", "mlx", "--to", "safetensors"),
    _converted("--quant", "q4_k_m,q8_0,q5_1"),
    _converted("--method", "importance", *TEXT),
    _refused,
    _against,
    _converted("--method", "gptq", *TEXT),
)


def soak(runs: int, place: Path, turns: Sequence[Turn] = TURNS) -> tuple[Held, Held, Held]:
    """Run; what is held after the first turns, after half of the runs, and at the end."""
    source, after = small.write_model(place / "source"), {}
    for number in range(runs):
        turns[number % len(turns)](source, place / "out")
        shutil.rmtree(place / "out", ignore_errors=True)
        after[number] = Held.now() if number in (len(turns) - 1, runs // 2, runs - 1) else None
        if number % max(1, runs // 8) == 0:
            print(number, Held.now(), flush=True)
    assert [path.name for path in place.iterdir()] == ["source"]
    first, half, last = (held for held in after.values() if held)
    return first, half, last


def problems(first: Held, half: Held, last: Held) -> list[str]:
    """What was not given back."""
    found = []
    if last.memory - half.memory > GROWTH:
        found.append(f"{(last.memory - half.memory) / 1e6:.0f} MB of memory")
    if last.files > first.files:
        found.append(f"{last.files - first.files} file descriptors")
    if last.threads > first.threads:
        found.append(f"{last.threads - first.threads} threads")
    return found


def _with_one_heap() -> None:
    """Start again with one heap for all threads: glibc gives them several, whose holes grow although nothing leaks."""
    if "MALLOC_ARENA_MAX" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_ARENA_MAX": "1"})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--runs", type=int, default=200)
    asked = options.parse_args()
    _with_one_heap()
    with tempfile.TemporaryDirectory() as place:
        held = soak(asked.runs, Path(place))
    print(*held, sep="\n")
    bad = problems(*held)
    print(f"{asked.runs} runs, not given back: {', '.join(bad) or 'nothing'}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
