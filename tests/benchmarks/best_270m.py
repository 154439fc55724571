"""The best that a size gives: KL of calibrated and refined files of the real 270M, as shares of plain Q4_0's.

    python tests/benchmarks/best_270m.py --work FOLDER [--seeds 0,1,2] [--models q4_0,iq4_nl,small]
        [--calibration-tokens 32768] [--refine 74steps] [--size 178M] [--tokens 2040]

The source is the sample, dithered off the lattices of its own quantization by each seed. Codes, sensitivities and norms
get half of the Python reference and half of the standard library's sources; scored are the other halves, and licences,
of which none of them has seen anything. `small` has types chosen for the size. Beside all stands Q4_0 rounded to
nearest. Every file and every score stays in FOLDER, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

from methods_270m import scores, texts
from rich import print as show
from rich.table import Table

from gemmaq.qat.dither import dithered_folder
from gemmaq.sources.open import open_source


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--models", default="q4_0,iq4_nl,small")
    options.add_argument("--calibration-tokens", type=int, default=32768)
    options.add_argument("--refine", default="74steps")
    options.add_argument("--size", default="178M")
    options.add_argument("--tokens", type=int, default=2040)
    asked = options.parse_args()
    made = Table(title=f"270M, calibrated on {asked.calibration_tokens:,} tokens, refined for {asked.refine}")
    for column in ("seed", "model", "bytes", "minutes", "reference", "code", "licences"):
        made.add_column(column)
    for seed in asked.seeds.split(","):
        for row in rows(asked.work / seed, int(seed), asked):
            made.add_row(seed, *row)
        show(made)


def rows(folder: Path, seed: int, asked: argparse.Namespace) -> list[list[str]]:
    """A row for each model: its bytes, minutes of the machine, and KL with its share of nearest's."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source"
    if not source.exists():
        dithered_folder(open_source("sample:gemma-3-270m", tokenizer=True), source, seed)
    calibrated, held = texts(folder)
    calibrate = [f"--calibration-tokens={asked.calibration_tokens}", *(f"--text={path}" for path in calibrated)]
    minutes = {"nearest": converted(source, folder / "nearest", "--method=nearest", "--quant=q4_0")}
    for name in asked.models.split(","):
        kind = f"--target-size={asked.size}" if name == "small" else f"--quant={name}"
        more = (kind, "--method=gptq", *calibrate, f"--refine={asked.refine}")
        minutes[name] = converted(source, folder / name, *more)
    kls: dict[str, list[float]] = {name: [] for name in minutes}
    sizes = {}
    for kind, text in held.items():
        for name in minutes:
            kept = folder / f"{name}-{kind}.json"
            if not kept.exists():
                said = scores(source, text, {name: folder / name}, asked.tokens, None)
                kept.write_text(json.dumps(said[name]))
            said = json.loads(kept.read_text())
            kls[name].append(said["kl"]["mean"])
            sizes[name] = said["bytes"]
    return [
        [name, f"{sizes[name]:,}", f"{minutes[name]:.0f}"]
        + [f"{kl:.4f} ({kl / plain:.3f})" for kl, plain in zip(kls[name], kls["nearest"], strict=True)]
        for name in minutes
    ]


def converted(source: Path, out: Path, *options: str) -> float:
    """Convert unless that was done; the minutes that it took."""
    took = out.with_suffix(".minutes")
    if not took.exists():
        started = time.monotonic()
        command = ["gemmaq", "convert", str(source), *options, "--force", "-o", str(out), "-q"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took.write_text(f"{(time.monotonic() - started) / 60:.1f}")
    return float(took.read_text())


if __name__ == "__main__":
    main()
