"""What it costs that an artifact proves itself: the full-size synthetic 1B to Q4_0 GGUF with and without its digests.

    python tests/benchmarks/digests_1b.py MODEL_FOLDER [--runs 5]

MODEL_FOLDER is the checkpoint that convert_1b.py makes. Runs in turn: files beside the weights left away; the same
checkpoint with the record that `gemmaq pull -o` leaves, so that its digests are known; with digests that an earlier run
remembered; without any (`--no-source-digest`); and to be read, so that 2 GB of source are read once more on threads
beside the conversion. `verify --against` and `cp` of the source beside them. Prints medians and ratios, run by run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from timing import Cost, cost, cost_ratio, costs, load

_BARE = """
import sys
from gemmaq.convert import run, side_files
run.finisher = lambda *_: side_files.Finisher(lambda *_: None, lambda *_: lambda *_: None)
from gemmaq.cli.app import main
main()
"""
_WHOLE = "from gemmaq.cli.app import main; main()"


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
    model: Path = arguments.model.resolve()
    with tempfile.TemporaryDirectory(dir=model.parent) as name:
        place = Path(name)
        out, known = place / "out", recorded(model, place)

        def convert(source: Path, *options: str, code: str = _WHOLE) -> list[object]:
            return [sys.executable, "-c", code, "convert", source, "-q", "-o", out, *options]

        commands: dict[str, list[object]] = {
            "weights alone": convert(model, "--no-source-digest", code=_BARE),
            "source on record": convert(known),
            "remembered": convert(model),
            "--no-source-digest": convert(model, "--no-source-digest"),
            "on record, 1 thread": convert(known, "--threads", "1"),
            "on record, 2 threads": convert(known, "--threads", "2"),
            "cp": ["cp", "-r", model, out],
            "source to be read": convert(model, "--no-digest-cache"),
            "verify --against": [sys.executable, "-c", _WHOLE, "verify", out, "--against", model, "-q"],
        }
        found: dict[str, list[Cost]] = {row: [] for row in commands}
        for number in range(arguments.runs + 1):  # the first round warms caches and is not counted
            for row, command in commands.items():
                if "verify" not in command:  # which takes what the row before it made
                    shutil.rmtree(out, ignore_errors=True)
                one = cost(command, {"GEMMAQ_CACHE": str(place / "cache")})
                if number:
                    found[row].append(one)
    costs(found)
    cost_ratio("verify --against / convert", found["verify --against"], found["source to be read"])
    cost_ratio("1 thread / 2 threads", found["on record, 1 thread"], found["on record, 2 threads"])
    cost_ratio("convert / cp, digests on record", found["source on record"], found["cp"])
    cost_ratio("digests to be read / remembered", found["source to be read"], found["remembered"])
    print(load())


if __name__ == "__main__":
    main()
