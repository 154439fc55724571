"""Wall time, CPU time and peak memory of commands."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Timing = tuple[float, float]
"""Wall seconds and peak resident MB."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took: wall seconds, CPU seconds of all threads, peak resident MB."""

    wall: float
    cpu: float
    peak: float


def cost(command: Sequence[object], environment: Mapping[str, str] | None = None) -> Cost:
    """What a command takes, with variables added to its environment."""
    os.sync()  # what the command before left unwritten is not this one's to wait for
    script = (
        "import resource, subprocess, sys, time\n"
        "start = time.monotonic(); code = subprocess.call(sys.argv[1:], stdout=2); took = time.monotonic() - start\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(took, used.ru_utime + used.ru_stime, used.ru_maxrss); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr}")
    wall, cpu, kilobytes = map(float, done.stdout.split())
    return Cost(wall, cpu, kilobytes / 1e3)


def timed(command: list[object]) -> Timing:
    """Wall seconds and peak resident MB of a command."""
    found = cost(command)
    return found.wall, found.peak


def costs(rows: Mapping[str, Sequence[Cost]]) -> None:
    """Print the medians of each row."""
    width = max(map(len, rows)) + 1
    print(f"{'':{width}}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}")
    for name, found in rows.items():
        wall, cpu, peak = (statistics.median(getattr(one, key) for one in found) for key in ("wall", "cpu", "peak"))
        print(f"{name:{width}}{wall:8.2f}{cpu:8.2f}{peak:9.0f}")


def cost_ratio(what: str, above: Sequence[Cost], below: Sequence[Cost]) -> None:
    """Print how many times as much the one side takes as the other, run by run, in wall and in CPU time."""
    texts = []
    for key in ("wall", "cpu"):
        ratios = [getattr(a, key) / getattr(b, key) for a, b in zip(above, below, strict=True)]
        texts.append(f"{key} {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"{what}: {', '.join(texts)}")


def load() -> str:
    """How busy the machine is, for a report: processes that want to run, and cores."""
    return f"load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores"


def table(rows: dict[str, Sequence[Timing]]) -> None:
    """Print the median time and the largest peak of each row."""
    width = max(map(len, rows)) + 1
    print(f"{'':{width}}{'wall s':>8}{'peak MB':>9}")
    for name, timings in rows.items():
        print(f"{name:{width}}{statistics.median(t[0] for t in timings):8.2f}{max(t[1] for t in timings):9.0f}")


def ratio(what: str, above: Sequence[Timing], below: Sequence[Timing]) -> None:
    """Print how many times longer the one side takes than the other, run by run."""
    ratios = [a[0] / b[0] for a, b in zip(above, below, strict=True)]
    print(f"{what}: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
