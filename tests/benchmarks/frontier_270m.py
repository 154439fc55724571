"""Whether chosen types lie below the best single types: KL against bytes, two models, three kinds of text, seeds.

    python tests/benchmarks/frontier_270m.py --work FOLDER [--seeds 0,1,2] [--methods nearest,gptq]
        [--models narrow,wide] [--bits 4.3,4.8,5.3,5.9,6.5] [--tokens 2040] [--calibration-tokens 8192] [--uniform-only]

The narrow model is the real 270M, dithered off the lattices of its own quantization with a seed; the wide one is the
same with rows of 768, which K-quants can hold (see gptq_types.py). Codes and sensitivities are calibrated on the Python
reference and the standard library's sources; scored are other parts of both, and licences, of which nothing was
calibrated on or measured. Every score is kept in FOLDER/scores.json as it comes: a run that was
stopped goes on.

Chosen types are compared with two hulls of single types: one straight in KL, which a blend of two types by chance
reaches as losses add up, and one straight in its logarithm, which is lower and no file. The difference is taken chunk
by chunk and averaged over seeds; its standard error is over chunks.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
from gptq_types import widened
from methods_270m import texts
from rich import print as show
from rich.table import Table

from gemmaq.evaluate import run
from gemmaq.evaluate.chunks import cut
from gemmaq.files.atomic import write_file
from gemmaq.inference.device import open_device
from gemmaq.inference.documents import read
from gemmaq.inference.tokenize import load_encoder
from gemmaq.progress import ignore
from gemmaq.qat.dither import dithered_folder
from gemmaq.sources.open import open_source

TYPES = {
    "narrow": ("q4_0+q4_0", "iq4_nl+iq4_nl", "q4_1+q4_1", "iq4_nl+q5_0", "q5_0+q5_0", "q5_1+q5_1", "q5_1+q8_0", "q8_0"),
    "wide": ("q4_0", "iq4_nl", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k", "q8_0"),
}
"""Single types, and mixtures with a name, of each model; behind a plus sign the type of the embedding."""
CONTEXT = 512
Scores = dict[str, dict[str, object]]
"""Key of a file -> bytes, bits per weight, and KL of every chunk by kind of text."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--methods", default="nearest,gptq")
    options.add_argument("--models", default="narrow,wide")
    options.add_argument("--bits", default="4.3,4.8,5.3,5.9,6.5")
    options.add_argument("--types", help="single types of all models, in place of the usual ones")
    options.add_argument("--tokens", type=int, default=2040)
    options.add_argument("--calibration-tokens", type=int, default=8192)
    options.add_argument("--uniform-only", action="store_true")
    asked = options.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    kept = asked.work / "scores.json"
    scores: Scores = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    bits = () if asked.uniform_only else tuple(asked.bits.split(","))
    for seed in seeds:
        for kind in asked.models.split(","):
            source = made(asked.work / str(seed), seed, kind)
            for method in asked.methods.split(","):
                names = asked.types.split(",") if asked.types else TYPES[kind]
                wanted = [(name, uniform(name)) for name in names]
                wanted += [(f"{number}bpw", ["--target-bpw", number]) for number in bits]
                for name, flags in wanted:
                    key = f"{kind}/{method}/{name}/{seed}"
                    if key not in scores:
                        scores[key] = scored(asked, source, method, flags)
                        write_file(kept, json.dumps(scores).encode(), True)
    for kind in asked.models.split(","):
        for method in asked.methods.split(","):
            show(table(scores, kind, method, seeds))


def uniform(name: str) -> list[str]:
    """Options for a single type, or one with another for the embedding."""
    body, _, embedding = name.partition("+")
    return ["--quant", body, *(["--embedding", embedding] if embedding else [])]


def made(folder: Path, seed: int, kind: str) -> Path:
    """The model of a seed, made once."""
    folder.mkdir(exist_ok=True)
    narrow = folder / "narrow"
    if not narrow.exists():
        dithered_folder(open_source("sample:gemma-3-270m", tokenizer=True), narrow, seed)
    return narrow if kind == "narrow" else widened(folder)


def scored(asked: argparse.Namespace, source: Path, method: str, flags: list[str]) -> dict[str, object]:
    """Convert, score on every kind of text, and remove the file."""
    calibrated, held = texts(asked.work)
    chosen = flags[0] == "--target-bpw"
    calibrate = [f"--calibration-tokens={asked.calibration_tokens}", *(f"--text={path}" for path in calibrated)]
    out = asked.work / "out"
    shutil.rmtree(out, ignore_errors=True)
    options = [*flags, "--method", method, *(calibrate if chosen or method != "nearest" else ()), "-o", str(out), "-q"]
    subprocess.run([sys.executable, "-m", "gemmaq", "convert", str(source), *options], check=True)
    checkpoints = [open_source(str(source), tokenizer=True), open_source(str(next(out.glob("*.gguf"))))]
    bits = 8 * sum(tensor.nbytes for tensor in checkpoints[1].tensors.values()) / checkpoints[1].parameters
    kl = {}
    for name, path in held.items():
        chunks = cut(read([path]), load_encoder(checkpoints[0]), context=CONTEXT, tokens=asked.tokens)
        with open_device(None, 1) as device:
            cache = asked.work / "cache"
            found = run.evaluate(checkpoints, chunks, device=device, progress=ignore, cache_folder=cache)
        kl[name] = found[1].kl.reshape(len(chunks.tokens), -1).mean(1).tolist()
    size = sum(path.stat().st_size for path in checkpoints[1].files)
    shutil.rmtree(out)
    return {"bytes": size, "bits": bits, "kl": kl}


def table(scores: Scores, kind: str, method: str, seeds: list[int]) -> Table:
    """A row a file, its KL on each kind of text, and for chosen types the distance from the hull of single ones."""
    against = "share of the hull, standard errors below it; the same of the hull in logarithms"
    shown = Table(title=f"{kind}, {method}, {len(seeds)} seeds: mean KL ({against})")
    names = list(dict.fromkeys(key.split("/")[2] for key in scores if key.startswith(f"{kind}/{method}/")))
    names = [name for name in names if all(f"{kind}/{method}/{name}/{seed}" in scores for seed in seeds)]
    files = {name: [scores[f"{kind}/{method}/{name}/{seed}"] for seed in seeds] for name in names}
    kinds = list(files[names[0]][0]["kl"]) if names else []
    for column in ("types", "bytes", "bits per weight", *kinds):
        shown.add_column(column, justify="left" if column == "types" else "right")
    size = {name: int(np.mean([file["bytes"] for file in own])) for name, own in files.items()}
    for name in sorted(names, key=size.__getitem__):
        cells = [name, f"{size[name]:,}", f"{np.mean([file['bits'] for file in files[name]]):.3f}"]
        for text in kinds:
            chunks = {each: np.mean([file["kl"][text] for file in own], 0) for each, own in files.items()}
            cell = f"{chunks[name].mean():.4f} ± {_error(chunks[name]):.4f}"
            cells.append(cell + (against_hull(name, chunks, size) if name.endswith("bpw") else ""))
        shown.add_row(*cells)
    return shown


def against_hull(name: str, chunks: dict[str, np.ndarray], size: dict[str, int]) -> str:
    """Share of both hulls' height at that size, and by how many standard errors it lies below (+) or above (-) them."""
    single = sorted((size[each], each) for each in chunks if not each.endswith("bpw"))
    said = []
    for scale, back in ((float, float), (math.log, math.exp)):
        for a, b in pairwise(hull(single, {each: scale(kl.mean()) for each, kl in chunks.items()})):
            if size[a] <= size[name] <= size[b]:
                share = (size[name] - size[a]) / (size[b] - size[a])
                ends = [scale(chunks[each].mean()) for each in (a, b)]
                height = back((1 - share) * ends[0] + share * ends[1])
                at = (1 - share) * chunks[a] + share * chunks[b]
                below = at * (height / at.mean()) - chunks[name]
                said.append(f"{chunks[name].mean() / height:.2f}, {below.mean() / (_error(below) or math.inf):+.1f}")
    return f" ({'; '.join(said)})" if said else ""


def hull(models: list[tuple[int, str]], height: dict[str, float]) -> list[str]:
    """Names of the models on the lower hull of heights over sizes, the smallest first."""
    found: list[tuple[int, str]] = []

    def slope(a: tuple[int, str], b: tuple[int, str]) -> float:
        return (height[b[1]] - height[a[1]]) / (b[0] - a[0])

    for model in models:
        if found and height[model[1]] >= height[found[-1][1]]:
            continue
        while len(found) > 1 and slope(found[-2], found[-1]) >= slope(found[-2], model):
            found.pop()
        found.append(model)
    return [name for _, name in found]


def _error(chunks: np.ndarray) -> float:
    return float(chunks.std(ddof=1) / math.sqrt(len(chunks))) if len(chunks) > 1 else 0.0


if __name__ == "__main__":
    main()
