"""What it costs that an artifact proves itself: the full-size synthetic 1B to Q4_0 GGUF with and without its digests.

    python tests/benchmarks/digests_1b.py MODEL_FOLDER [--runs 5]

MODEL_FOLDER is the checkpoint that convert_1b.py makes. Runs in turn: files beside the weights left away; the same
checkpoint with the record that `gemmaq pull -o` leaves, so that its digests are known; and without, so that 2 GB of
source are read once more on threads beside the conversion. Prints medians of wall and CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_BARE = """
import sys
from contextlib import contextmanager
from gemmaq.convert import run, side_files
@contextmanager
def nothing(*_):
    yield side_files.Finisher(lambda *_: None, None)
run.finisher = nothing
from gemmaq.cli.app import main
main()
"""
_WHOLE = "from gemmaq.cli.app import main; main()"
_MEASURED = """
import json, resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.call(sys.argv[1:], stdout=2)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3]))
sys.exit(code)
"""


def recorded(model: Path, place: Path) -> Path:
    """The same files under another name, as if they had been pulled; the digests of weights are made up."""
    folder = place / model.name
    records = folder / ".cache/huggingface/download"
    records.mkdir(parents=True)
    for path in model.iterdir():
        os.symlink(path, folder / path.name)
        etag = "a" * (64 if path.suffix == ".safetensors" else 40)
        (records / f"{path.name}.metadata").write_text(f"{'c' * 40}\n{etag}\n{time.time()}\ngoogle/gemma-3-1b-it\n")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        known = recorded(arguments.model.resolve(), place)
        rows: dict[str, tuple[str, Path]] = {
            "weights alone": (_BARE, arguments.model),
            "source on record": (_WHOLE, known),
            "source to be read": (_WHOLE, arguments.model),
        }
        found: dict[str, list[list[float]]] = {row: [] for row in rows}
        for number in range(arguments.runs + 1):  # the first round warms caches and is not counted
            for row, (code, model) in rows.items():
                shutil.rmtree(place / "out", ignore_errors=True)
                os.sync()
                command = [sys.executable, "-c", code, "convert", model, "-q", "-o", place / "out"]
                done = subprocess.run(
                    [sys.executable, "-c", _MEASURED, *map(str, command)], capture_output=True, text=True, check=True
                )
                if number:
                    found[row].append(json.loads(done.stdout))
    print(f"{'':20}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}")
    for row, runs in found.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{row:20}{wall:8.2f}{cpu:8.2f}{peak:9.0f}")


if __name__ == "__main__":
    main()
