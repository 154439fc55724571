"""What `--refine` gains: the real 270M in several types and methods, three kinds of text, several seeds.

    python tests/benchmarks/refine_270m.py [--minutes 2] [--seeds 1] [--tokens 2040] [--types q4_0 q4_k_m]
        [--methods nearest gptq]

The source is the sample, dithered off the lattices of its own quantization by a seed. Codes and norms get the same
text, half of the Python reference and half of the standard library's sources; scored are the other halves, and
licences, of which neither codes nor norms have seen anything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

from methods_270m import scores, texts
from rich import print as show
from rich.table import Table

from gemmaq.qat.dither import dithered_folder
from gemmaq.sources.open import open_source


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--minutes", default="2", help="as for --refine, so that 40steps does as well")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--tokens", type=int, default=2040)
    options.add_argument("--calibration-tokens", type=int, default=32768)
    options.add_argument("--types", nargs="+", default=["q4_0", "q4_k_m"])
    options.add_argument("--methods", nargs="+", default=["nearest", "gptq"])
    asked = options.parse_args()
    made = Table(title=f"270M, refined: {asked.minutes} minutes; mean KL before -> after")
    for column in ("seed", "method", "type", "steps", "seconds a step", "held out", "reference", "code", "licences"):
        made.add_column(column)
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            dithered_folder(open_source("sample:gemma-3-270m", tokenizer=True), folder / "source", seed)
            for row in rows(folder, asked):
                made.add_row(str(seed), *row)
    show(made)


def rows(folder: Path, asked: argparse.Namespace) -> list[list[str]]:
    """A row for each method and type: the same codes with the norms of the source, and with tuned ones."""
    found, (calibrated, held) = [], texts(folder)
    for method in asked.methods:
        for kind in asked.types:
            models, told = {}, {}
            for name, more in (("plain", []), ("refined", [f"--refine={asked.minutes}"])):
                texts_used = [f"--text={path}" for path in calibrated] if more or method != "nearest" else []
                tokens = [f"--calibration-tokens={asked.calibration_tokens}"] if texts_used else []
                command = ["gemmaq", "convert", folder / "source", "--json", f"--method={method}", f"--quant={kind}"]
                command += [*texts_used, *tokens, *more, "--force", "-o", folder / name]
                started = time.monotonic()
                said = json.loads(subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE).stdout)
                print(f"{method} {kind} {name}: {time.monotonic() - started:.0f} s", flush=True)
                models[name], told = folder / name, said["artifacts"][0].get("refine", told)
            gains = []
            for path in held.values():
                kl = scores(folder / "source", path, models, asked.tokens, None)
                gains.append(f"{kl['plain']['kl']['mean']:.4f} -> {kl['refined']['kl']['mean']:.4f}")
            found.append([method, kind, f"{told['kept']}/{told['steps']}", f"{told['seconds'] / told['steps']:.2f}",
                          f"{told['before']:.4f} -> {told['after']:.4f}", *gains])  # fmt: skip
    return found


if __name__ == "__main__":
    main()
