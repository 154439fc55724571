"""What GPTQ gains on K-quants, IQ4_NL and others, at equal bytes: the 270M widened to rows of 768, two kinds of text.

    python tests/benchmarks/gptq_types.py [--types q4_k,q4_k_m,q6_k,iq4_nl] [--tokens 2040] [--work FOLDER]

K-quants need rows of multiples of 256, and those of the 270M are 640. So its hidden states get 128 numbers more that
are always 0: gains of norms and the embedding are scaled for the longer mean, and what the model says is the same, but
for rounding to BF16. Before, weights are dithered off the lattices of their own quantization. Codes are calibrated on
half of the Python reference; scored are the other half, and licences, of which nothing was calibrated on. The embedding
stays Q8_0, which costs nothing to speak of. All GPTQ types come out of one pass.

Measured in November 2026 with --tokens 1020, mean KL divergence and standard error, reference / licences:

    Q4_K    nearest 0.187         importance 0.067 ± 0.014 / 0.119 ± 0.010    gptq 0.0285 ± 0.0022 / 0.0946 ± 0.0053
    Q4_K_M                        importance 0.051 ± 0.007 / 0.093 ± 0.006    gptq 0.0245 ± 0.0017 / 0.0788 ± 0.0051
    Q6_K                          importance 0.0078 ± 0.0003 / 0.0111 ± 0.0005  gptq 0.0025 ± 0.0001 / 0.0097 ± 0.0006
    IQ4_NL  nearest 0.146         importance 0.074 ± 0.003 / 0.137 ± 0.007    gptq 0.0312 ± 0.0021 / 0.1134 ± 0.0064

Files of a type differ in a few bytes of names, but IQ4_NL: with a matrix llama-quantize promotes less, 0.14 % of bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from methods_270m import texts
from rich import print as show
from rich.table import Table

from gemmaq.qat.dither import dithered_folder
from gemmaq.sources.open import open_source

WIDTH = 768
EMBEDDING = "q8_0"
METHODS = ("nearest", "importance", "gptq")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--types", default="q4_k,q4_k_m,q6_k,iq4_nl")
    options.add_argument("--tokens", type=int, default=2040)
    options.add_argument("--calibration-tokens", type=int, default=8192)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--work", type=Path, help="folder for files that a later run takes again")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = asked.work or Path(place)
        folder.mkdir(exist_ok=True)
        source = widened(folder)
        (reference, _), held = texts(folder)
        names = asked.types.split(",")
        models: dict[str, Path] = {}
        calibrate = [f"--text={reference}", f"--calibration-tokens={asked.calibration_tokens}"]
        for method in METHODS:
            options = [f"--threads={asked.threads}", *(calibrate if method != "nearest" else ())]
            files = converted(folder, source, method, names, options)
            models |= {f"{name}, {method}": path for name, path in files.items()}
        kinds = {kind: scores(source, held[kind], models, asked) for kind in ("reference", "licences")}
    show(table(kinds, models))


def widened(folder: Path) -> Path:
    """The dithered 270M with rows of WIDTH."""
    from safetensors.torch import load_file, save_file
    from torch.nn.functional import pad

    narrow, wide = folder / "narrow", folder / "wide"
    if wide.exists():
        return wide
    if not narrow.exists():
        dithered_folder(open_source("sample:gemma-3-270m", tokenizer=True), narrow, 0)
    made = folder / "part"
    made.mkdir()
    for path in narrow.iterdir():
        if path.suffix in (".json", ".model") and path.name not in ("gemmaq.json", "config.json"):
            (made / path.name).write_bytes(path.read_bytes())
    config = json.loads((narrow / "config.json").read_text("utf-8"))
    before = config["hidden_size"]
    shrink = math.sqrt(before / WIDTH)
    (made / "config.json").write_text(json.dumps(config | {"hidden_size": WIDTH}, indent=2), "utf-8")
    tensors = load_file(narrow / "model.safetensors")
    for name, tensor in tensors.items():
        more, whole = WIDTH - before, tensor.float()
        if tensor.ndim == 1 and len(tensor) == before:
            gain = (1 + whole) * (1 if name.endswith("model.norm.weight") else shrink) - 1
            whole = pad(gain, (0, more))
        elif name.endswith("embed_tokens.weight"):
            whole = pad(whole * shrink, (0, more))
        elif tensor.ndim == 2:
            whole = pad(
                whole, (0, more if tensor.shape[1] == before else 0, 0, more if tensor.shape[0] == before else 0)
            )
        tensors[name] = whole.bfloat16().contiguous()
    save_file(tensors, made / "model.safetensors", {"format": "pt"})
    made.rename(wide)
    return wide


def gemmaq(*arguments: object) -> str:
    command = [sys.executable, "-m", "gemmaq", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def converted(folder: Path, source: Path, method: str, names: list[str], options: list[object]) -> dict[str, Path]:
    """A file of every type, all made in one run."""
    out = folder / method
    if not out.exists():
        types = [flag for name in names for flag in ("--quant", name)]
        gemmaq("convert", source, *types, "--embedding", EMBEDDING, "--method", method, *options, "-o", out)
    return {name: next(out.glob(f"*-{name.upper()}.gguf")) for name in names}


def scores(source: Path, text: Path, models: dict[str, Path], asked: argparse.Namespace) -> list[dict]:
    """What `gemmaq evaluate` says of every model."""
    options = (f"--text={text}", "--json", f"--tokens={asked.tokens}", f"--threads={asked.threads}")
    found: list[dict] = json.loads(gemmaq("evaluate", *models.values(), "--reference", source, *options))["models"]
    return found


def table(kinds: dict[str, list[dict]], models: dict[str, Path]) -> Table:
    """A row a file; mean KL divergence, and as a share of that with an importance matrix."""
    made = Table(title="mean KL divergence from BF16")
    made.add_column("type, method")
    made.add_column("bytes", justify="right")
    for kind in kinds:
        made.add_column(kind, justify="right")
        made.add_column("of importance", justify="right")
    for at, (name, path) in enumerate(models.items()):
        weighed = list(models).index(f"{name.partition(',')[0]}, importance")
        cells = [name, f"{path.stat().st_size:,}"]
        for said in kinds.values():
            kl = said[at]["kl"]
            cells += [f"{kl['mean']:.4f} ± {kl['stderr']:.4f}", f"{kl['mean'] / said[weighed]['kl']['mean']:.2f}"]
        made.add_row(*cells)
    return made


if __name__ == "__main__":
    main()
