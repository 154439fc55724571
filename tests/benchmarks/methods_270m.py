"""What every method costs in quality, at the same bytes: the real 270M in Q4_0, three kinds of text.

    python tests/benchmarks/methods_270m.py [--tokens 2040] [--calibration-tokens 8192] [--report FILE.html]

The source is the sample, dithered off the lattices of its own quantization, so that it is like weights that were never
quantized. Codes are calibrated on half of the Python reference and half of the standard library's sources; scored are
the other halves, and licences, of which nothing was calibrated on. Beside gemmaq's methods stands llama.cpp's own
Q4_0, plain and with an importance matrix of the same text, made by the npm package that GEMMAQ_ORACLES points at.
"""

from __future__ import annotations

import argparse
import json
import pydoc_data.topics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from rich import print as show
from rich.table import Table

from gemmaq.calibration.imatrix import read
from gemmaq.qat.dither import dithered_folder
from gemmaq.sources.open import open_source
from oracles import llama_quantize


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--tokens", type=int, default=2040)
    options.add_argument("--calibration-tokens", type=int, default=8192)
    options.add_argument("--report", type=Path, help="of the calibrated kind of text")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = folder / "source"
        dithered_folder(open_source("sample:gemma-3-270m", tokenizer=True), source, 0)
        calibrated, held = texts(folder)
        models, seconds = quantized(folder, source, calibrated, asked.calibration_tokens)
        found = {name: scores(source, path, models, asked.tokens, None) for name, path in held.items()}
        if asked.report:
            scores(source, next(iter(held.values())), models, asked.tokens, asked.report)
    show(table(found, seconds))


def texts(folder: Path) -> tuple[list[Path], dict[str, Path]]:
    """What is calibrated on, and what is scored: no document is in both."""
    topics = list(pydoc_data.topics.topics.values())
    library = Path(sysconfig.get_path("stdlib"))
    code = [path.read_text("utf-8") for path in sorted(library.glob("[a-m]*.py"))]
    licences = [path for path in sorted(Path("/usr/share/common-licenses").iterdir()) if not path.is_symlink()]
    parts = {
        "reference": "\n\n".join(topics[::2]),
        "code": "\n\n".join(code[::2])[:200_000],
        "reference-held": "\n\n".join(topics[1::2]),
        "code-held": "\n\n".join(code[1::2])[:200_000],
        "licences-held": "\n\n".join(path.read_text("utf-8", "replace") for path in licences),
    }
    files = {name: folder / f"{name}.txt" for name in parts}
    for name, path in files.items():
        path.write_text(parts[name], "utf-8")
    held = {name.removesuffix("-held"): path for name, path in files.items() if name.endswith("-held")}
    return [files["reference"], files["code"]], held


def quantized(folder: Path, source: Path, text: list[Path], tokens: int) -> tuple[dict[str, Path], dict[str, float]]:
    """Files of every method, and how long gemmaq took."""
    calibrate = [f"--calibration-tokens={tokens}", *(f"--text={path}" for path in text)]
    seconds: dict[str, float] = {}

    def timed(label: str, *arguments: object) -> None:
        started = time.monotonic()
        subprocess.run(["gemmaq", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
        seconds[label] = time.monotonic() - started

    timed("bf16", "convert", source, "--quant", "bf16", "-o", folder / "bf16")
    timed("nearest", "convert", source, "--method", "nearest", "-o", folder / "nearest")
    timed("imatrix", "imatrix", source, *calibrate, "-o", folder / "imatrix.gguf")
    timed("importance", "convert", source, "--method=importance", f"--imatrix={folder / 'imatrix.gguf'}",
          "-o", folder / "importance")  # fmt: skip
    solve = ("convert", source, "--method=gptq", *calibrate)
    timed("gptq", *solve, "--sweeps=0", "--to=gguf", "--to=mlx", "-o", folder / "gptq")
    timed("gptq, swept", *solve, "--sweeps=2", "-o", folder / "gptq-swept")
    whole = next((folder / "bf16").glob("*.gguf"))
    matrix = read(folder / "imatrix.gguf")
    llama_quantize(whole, folder / "llama.gguf", "q4_0")
    weights = {name: matrix.importance(name) for name in matrix.entries}
    llama_quantize(whole, folder / "llama-imatrix.gguf", "q4_0", weights)
    models = {
        "llama.cpp": folder / "llama.gguf",
        "nearest": folder / "nearest",
        "llama.cpp, imatrix": folder / "llama-imatrix.gguf",
        "importance": folder / "importance",
        "gptq": folder / "gptq/gguf",
        "gptq, MLX": folder / "gptq/mlx",
        "gptq, swept": folder / "gptq-swept",
    }
    return models, seconds


def scores(source: Path, text: Path, models: dict[str, Path], tokens: int, report: Path | None) -> dict[str, dict]:
    """What `gemmaq evaluate` says of every model."""
    command = ["gemmaq", "evaluate", *map(str, models.values()), "--reference", str(source), "--text", str(text)]
    command += ["--json", f"--tokens={tokens}", *([f"--report={report}", "--force"] if report else [])]
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {"reference": said["reference"], **dict(zip(models, said["models"], strict=True))}


def table(found: dict[str, dict[str, dict]], seconds: dict[str, float]) -> Table:
    """A row a method, three columns a kind of text."""
    made = Table(title="Q4_0 of the 270M; KL as a share of plain's", caption=f"seconds: {rounded(seconds)}")
    made.add_column("method")
    made.add_column("bytes", justify="right")
    for name in found:
        for column in (f"{name}: perplexity", "mean KL", "top-1"):
            made.add_column(column, justify="right")
    first = next(iter(found.values()))
    for method, entry in first.items():
        cells = [method, f"{entry['bytes']:,}"]
        for said in found.values():
            one, plain = said[method], said["nearest"]["kl"]["mean"]
            kl = one.get("kl", {"mean": 0.0, "stderr": 0.0})
            cells.append(f"{one['perplexity']:.2f}")
            cells.append(f"{kl['mean']:.4f} ± {kl['stderr']:.4f} ({kl['mean'] / plain:.2f})")
            cells.append(f"{100 * one.get('top1', 1):.1f} %")
        made.add_row(*cells)
    return made


def rounded(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())


if __name__ == "__main__":
    main()
