"""Wall time and peak memory of commands."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

Timing = tuple[float, float]
"""Wall seconds and peak resident MB."""


def timed(command: list[object]) -> Timing:
    """Wall seconds and peak resident MB of a command."""
    os.sync()  # what the command before left unwritten is not this one's to wait for
    script = (
        "import resource, subprocess, sys, time\n"
        "start = time.monotonic(); code = subprocess.call(sys.argv[1:], stdout=2); took = time.monotonic() - start\n"
        "print(took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *map(str, command)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr}")
    seconds, kilobytes = done.stdout.split()
    return float(seconds), float(kilobytes) / 1e3


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
