"""Method importance against ggml with the same imatrix, on all matrices of the layers of the real 270M, in memory.

    python tests/benchmarks/importance.py [--type q4_0] [--runs 5] [--columns-of FILE]

Both sides get f32 rows, and write packed blocks; ggml's side is ggml_quantize_chunk of the npm package that
GEMMAQ_ORACLES points at, its threads sharing the rows as llama-quantize's do. The importance is made up unless an
imatrix file is given: neither side's speed depends on it. Sides run in turn, so that a machine whose speed drifts
treats them alike; ratios are taken run by run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np

from gemmaq.calibration.imatrix import read
from gemmaq.checkpoint.rows import weights
from gemmaq.encodings import ENCODINGS, Encoding, codec
from gemmaq.files.span import Reader
from gemmaq.methods import Choice, Importance, quantize
from gemmaq.models.gemma3.names import to_gguf
from gemmaq.sources.open import open_source
from oracles import ggml_quantize

Rows = tuple[np.ndarray, Importance]
SLAB = 256
"""Rows at a time: what a conversion has, about a MB."""


def body(imatrix: Path | None) -> list[Rows]:
    """Slabs of all matrices of the layers, with the importance of their columns."""
    known = read(imatrix) if imatrix else None
    random = np.random.default_rng(0)
    slabs = []
    with Reader() as reader:
        for tensor in open_source("sample:gemma-3-270m").tensors.values():
            if not tensor.place.role.is_layer_matrix:
                continue
            made = np.exp(2 * random.standard_normal(tensor.columns)).astype(np.float32)
            importance = Importance(known.importance(to_gguf(tensor.name)) if known else made)
            x = weights(tensor, 0, tensor.rows, reader)
            slabs += [(x[at : at + SLAB], importance) for at in range(0, len(x), SLAB)]
    return slabs


def ours(encoding: Encoding, rows: Rows) -> np.ndarray:
    pack = codec(encoding).pack
    assert pack is not None
    return pack(quantize(rows[0], encoding, Choice("importance", importance=rows[1])))


def theirs(encoding: Encoding, rows: Rows) -> np.ndarray:
    assert encoding.ggml_type is not None
    return ggml_quantize(encoding.ggml_type, rows[0], encoding.row_bytes(rows[0].shape[1]), rows[1].columns)


def seconds(side: Callable[[Encoding, Rows], np.ndarray], encoding: Encoding, slabs: list[Rows], threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        for _ in pool.map(lambda rows: side(encoding, rows), slabs):
            pass
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", default="q4_0", choices=("q4_0", "q4_1", "q5_0", "q5_1"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--columns-of", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    encoding, slabs = ENCODINGS[arguments.type], body(arguments.columns_of)
    elements = sum(x.size for x, _ in slabs)
    differ = sum(int((ours(encoding, rows) != theirs(encoding, rows)).sum()) for rows in slabs)
    print(f"{elements:,} weights as {encoding.label}; {differ} bytes differ; load {os.getloadavg()[0]:.1f}")
    print(f"{'threads':>7}{'gemmaq Gelem/s':>16}{'ggml Gelem/s':>14}{'ratio':>7}{'from':>7}{'to':>7}")
    for threads in (1, 2):
        pairs = [
            (seconds(ours, encoding, slabs, threads), seconds(theirs, encoding, slabs, threads))
            for _ in range(arguments.runs)
        ]
        fast, slow = (elements / statistics.median(side) / 1e9 for side in zip(*pairs, strict=True))
        ratios = [theirs / ours for ours, theirs in pairs]
        print(
            f"{threads:7}{fast:16.4f}{slow:14.4f}{statistics.median(ratios):7.2f}{min(ratios):7.2f}{max(ratios):7.2f}"
        )


if __name__ == "__main__":
    main()
