"""The first command after an installation: nothing is cached, there is no home, and nobody may write to the package.

    python tests/benchmarks/first_command.py GEMMAQ [GEMMAQ ...] [--runs 3]

Each GEMMAQ is the program of an installation with the extra `sample`: of a wheel with compiled loops, say, and of one
without (GEMMAQ_BUILD_KERNELS=none leaves them out of a build). They take turns. "q4_0" is the first command of the
README, "q4_k_m" makes K types from the same model in BF16, "again" is q4_0 with what the first run left in the caches.
Prints wall and CPU seconds, medians with the smallest and largest, and how many times the CPU seconds of the last
GEMMAQ each of them takes, run by run. The files must be the same. Take the right to write away from the installations
before: chmod -R a-w FOLDER.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_POWERS = "-dac_override,-dac_read_search,-fowner"
_BOUND = ["setpriv", f"--bounding-set={_POWERS}", f"--inh-caps={_POWERS}"]
"""Root, too, may then write only where permissions allow it."""
Took = tuple[float, float]
"""Wall and CPU seconds."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gemmaq", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        work.chmod(0o777)
        source = work / "bf16"
        convert = ["sample:gemma-3-270m", "--to", "safetensors", "--quant", "bf16"]
        _run(options.gemmaq[-1], convert, source, work / "made")
        sources = {"q4_0": "sample:gemma-3-270m", "q4_k_m": str(source), "again": "sample:gemma-3-270m"}
        took: dict[tuple[str, Path], list[Took]] = {}
        digests: dict[str, set[str]] = {what: set() for what in sources}
        for number in range(options.runs):
            for what, model in sources.items():
                for place, program in enumerate(options.gemmaq):
                    out = work / f"{what}-{number}-{place}"
                    cache = work / f"cache-{number}-{place}-{what.replace('again', 'q4_0')}"
                    quant = ["--quant", what.replace("again", "q4_0")]
                    took.setdefault((what, program), []).append(_run(program, [model, *quant], out, cache))
                    (file,) = out.glob("*.gguf")
                    with file.open("rb") as stream:
                        digests[what].add(hashlib.file_digest(stream, "sha256").hexdigest())
                    file.unlink()
    print(f"{'':44}{'wall s':>20}{'CPU s':>20}{'times the CPU of the last':>28}")
    for (what, program), times in took.items():
        last = took[what, options.gemmaq[-1]]
        ratios = [one[1] / other[1] for one, other in zip(times, last, strict=True)]
        print(f"{what:8}{str(program)[-35:]:36}", *(_spread(column) for column in zip(*times, strict=True)), end="")
        print(f"{_spread(ratios):>28}")
    for what, found in digests.items():
        print(f"{what}: {'the same file' if len(found) == 1 else 'FILES DIFFER'}")


def _run(program: Path, arguments: list[str], out: Path, cache: Path) -> Took:
    """Convert, with an empty environment and a cache that is made if need be."""
    cache.mkdir(mode=0o777, exist_ok=True)
    cache.chmod(0o777)
    command = [str(program.absolute()), "convert", *arguments, "-o", str(out), "-q"]
    if os.getuid() == 0:
        command = [*_BOUND, *command]
    places = {name: str(cache) for name in ("GEMMAQ_CACHE", "NUMBA_CACHE_DIR", "TMPDIR")}
    before, start = os.times(), time.monotonic()
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1", **places}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - start, os.times()
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr}")
    return wall, sum(after[2:4]) - sum(before[2:4])


def _spread(values: tuple[float, ...] | list[float]) -> str:
    return f"{f'{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})':>20}"


if __name__ == "__main__":
    main()
