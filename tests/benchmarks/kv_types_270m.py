"""What every type of KV cache costs in quality: the real 270M in BF16, all kinds of text; and the same in llama.cpp.

    python tests/benchmarks/kv_types_270m.py [--tokens 1530] [--llama CHUNKS]

The model is the sample, dithered off the lattices of its own quantization, so that it is like weights that were never
quantized. With --llama, so many chunks of text are also run in llama.cpp, of the npm package that GEMMAQ_ORACLES points
at: in F32 and with a cache in F32, and with the types. The figures of `vram/kv_costs.py` are from here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from rich import print as show
from rich.table import Table

from gemmaq import vram
from gemmaq.encodings import ENCODINGS
from gemmaq.evaluate.chunks import CONTEXT, cut_kinds
from gemmaq.inference.documents import KINDS, read
from gemmaq.inference.tokenize import load_encoder
from gemmaq.qat.dither import dithered_folder
from gemmaq.sources.open import open_source
from oracles import Llama, load_llama

TYPES = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "q8_0,q4_0", "q4_0,f16", "f16,q4_0")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--tokens", type=int, default=1530)
    options.add_argument("--llama", type=int, default=0, metavar="CHUNKS")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = folder / "source"
        dithered_folder(open_source("sample:gemma-3-270m", tokenizer=True), source, 0)
        models = scores(source, asked.tokens)
        theirs = in_llama(folder, source, asked.tokens, asked.llama) if asked.llama else {}
    show(table(models, theirs))


def scores(source: Path, tokens: int) -> dict[str, dict[str, Any]]:
    """What `gemmaq evaluate` says of every type."""
    command = ["gemmaq", "evaluate", str(source), "--json", f"--tokens={tokens}"]
    command += [f"--kv-type={kind}" for kind in TYPES]
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {entry["kv_type"]: entry for entry in said["models"]}


def in_llama(folder: Path, source: Path, tokens: int, count: int) -> dict[str, float]:
    """Mean KL of every type in llama.cpp, over chunks spread over the kinds of text."""
    subprocess.run(["gemmaq", "convert", source, "--quant", "f32", "-o", folder / "f32", "-q"], check=True)
    encoder = load_encoder(open_source(str(source), tokenizer=True))
    chunks = cut_kinds(read((), KINDS, held_out=True), encoder, context=CONTEXT, tokens=tokens).tokens
    sums = dict.fromkeys(TYPES, 0.0)
    with load_llama(next((folder / "f32").glob("*.gguf"))) as llama:
        for at in range(0, len(chunks), -(-len(chunks) // count)):
            chunk = chunks[at].tolist()
            plain = logarithms(llama, chunk, None)
            for kind in TYPES:
                numbers = [ENCODINGS[name].ggml_type for name in vram.kv_types(kind)]
                found = logarithms(llama, chunk, (numbers[0], numbers[1]))
                sums[kind] += float((np.exp(plain) * (plain - found)).sum(-1).mean())
    used = len(range(0, len(chunks), -(-len(chunks) // count)))
    return {kind: total / used for kind, total in sums.items()}


def logarithms(llama: Llama, chunk: list[int], kv: tuple[int, int] | None) -> np.ndarray:
    """Log-probabilities of the tokens after the scored positions, f32 [scored, vocabulary]."""
    first = len(chunk) // 2
    rows = np.concatenate([part.copy() for part in llama.logits(chunk, first=first, exact=kv is None, kv=kv)])[:-1]
    rows -= rows.max(-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(-1, keepdims=True))


def table(models: dict[str, dict[str, Any]], theirs: dict[str, float]) -> Table:
    """A row a type."""
    kinds = next(iter(models.values()))["kinds"]
    made = Table(title="KV cache of the 270M in BF16: mean KL")
    for column in ("type", "bits", "mean KL", "top-1", *kinds, *(["llama.cpp"] if theirs else [])):
        made.add_column(column, justify="left" if column == "type" else "right")
    for kind, said in models.items():
        bits = sum(ENCODINGS[name].row_bytes(32) for name in vram.kv_types(kind)) / 8
        cells = [kind, f"{bits:.2f}", f"{said['kl']['mean']:.5f} ± {said['kl']['stderr']:.5f}"]
        cells += [f"{100 * said['top1']:.1f} %", *(f"{said['kinds'][name]['kl']['mean']:.5f}" for name in kinds)]
        made.add_row(*cells, *([f"{theirs[kind]:.5f}"] if theirs else []))
    return made


if __name__ == "__main__":
    main()
