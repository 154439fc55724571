"""A short training of the real 270M: what of its time is steps, and what is everything else.

    python tests/benchmarks/qat_short.py TEXT_FILE [--steps 5] [--runs 1]

Needs `gemmaq[sample]` and torch. Prints seconds of the whole command and, from its own report, of the steps; before
it what a dry run expects of both.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import load

_STEP = re.compile(r"training: (\d+) of (\d+) steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1)
    arguments = parser.parse_args()
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as place:
            command = [sys.executable, "-m", "gemmaq", "qat", "sample:gemma-3-270m", "--text", str(arguments.text)]
            command += ["--steps", str(arguments.steps), "-o", f"{place}/out"]
            told = subprocess.run([*command, "--dry-run", "--json"], capture_output=True, text=True, check=True)
            forecast = json.loads(told.stdout)
            expected, of_step = forecast["seconds"], forecast["seconds_per_step"]
            begun = time.monotonic()
            reached: list[tuple[float, str]] = []
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
                assert process.stderr is not None
                for line in process.stderr:
                    reached.append((time.monotonic() - begun, line.strip()))
            took = time.monotonic() - begun
            if process.returncode:
                sys.exit("\n".join(line for _, line in reached))
        before = next(at for at, line in reached if line.startswith("measuring before"))
        steps = [at for at, line in reached if _STEP.search(line)]
        after = next(at for at, line in reached if line.startswith("measuring after"))
        step = (steps[-1] - steps[0]) / max(1, arguments.steps - 1)
        print(f"expected {expected:.1f} s in all and {of_step:.2f} s a step, which was {step:.2f}")
        print(f"in all {took:.1f} s: start {before:.1f}, measuring before and first step {steps[0] - before:.1f},")
        print(f"    steps until {steps[-1]:.1f}, from there to the end {took - steps[-1]:.1f},")
        print(f"    of which measuring after and writing {took - after:.1f}; {load()}")


if __name__ == "__main__":
    main()
