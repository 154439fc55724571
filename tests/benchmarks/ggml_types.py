"""Every quantized type of GGUF against ggml itself, without and with an importance matrix: bytes and CPU seconds.

    python tests/benchmarks/ggml_types.py [--type q4_k --type q6_k] [--runs 5] [--rows 256] [--columns 2560]

Both sides get the same f32 rows, made up and rounded to BF16, and write packed blocks on one thread; ggml's side is
ggml_quantize_chunk of the npm package that GEMMAQ_ORACLES points at. Sides run in turn, so that a machine whose speed
drifts treats them alike; ratios are taken run by run. The first call is timed by itself: without a cache on disk it
compiles.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np

from gemmaq.encodings import ENCODINGS, Encoding, codec
from gemmaq.methods import METHODS, Choice, Importance, quantize
from oracles import ggml_quantize

QUANTIZED = [name for name, encoding in ENCODINGS.items() if encoding.ggml_type is not None and not encoding.is_float]


def made_up(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights f32 [rows, columns], and the importance of the columns."""
    random = np.random.default_rng(0)
    x = (random.standard_normal((rows, columns)) * 0.02).astype(np.float32)
    rounded = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return rounded, np.exp(2 * random.standard_normal(columns)).astype(np.float32)


def ours(encoding: Encoding, x: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    pack = codec(encoding).pack
    assert pack is not None
    if columns is None:
        return pack(quantize(x, encoding, Choice("nearest")))
    return pack(quantize(x, encoding, Choice("importance", importance=Importance(columns))))


def theirs(encoding: Encoding, x: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    assert encoding.ggml_type is not None
    return ggml_quantize(encoding.ggml_type, x, encoding.row_bytes(x.shape[1]), columns)


def seconds(side: Callable[..., np.ndarray], *arguments: object) -> tuple[float, np.ndarray]:
    """CPU seconds of this thread, and the bytes."""
    start = time.thread_time()
    packed = side(*arguments)
    return time.thread_time() - start, packed


def line(encoding: Encoding, x: np.ndarray, columns: np.ndarray | None, runs: int) -> str:
    first, mine = seconds(ours, encoding, x, columns)
    pairs, differ = [], 0
    for _ in range(runs):
        fast, mine = seconds(ours, encoding, x, columns)
        slow, known = seconds(theirs, encoding, x, columns)
        pairs.append((fast, slow))
        differ = int((mine != known).sum())
    fast, slow = (x.size / statistics.median(side) / 1e6 for side in zip(*pairs, strict=True))
    ratios = [slow / fast for fast, slow in pairs]
    return (
        f"{encoding.name:9}{'importance' if columns is not None else 'plain':11}{differ:7}{fast:14.1f}{slow:12.1f}"
        f"{statistics.median(ratios):7.2f}{min(ratios):7.2f}{max(ratios):7.2f}{first:9.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", action="append", choices=QUANTIZED)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--columns", type=int, default=2560)
    arguments = parser.parse_args()
    x, columns = made_up(arguments.rows, arguments.columns)
    print(f"{x.size:,} weights in rows of {x.shape[1]}; load {os.getloadavg()[0]:.1f}")
    print(f"{'':20}{'differ':>7}{'gemmaq M/s':>14}{'ggml M/s':>12}{'ratio':>7}{'from':>7}{'to':>7}{'first s':>9}")
    for name in arguments.type or QUANTIZED:
        encoding = ENCODINGS[name]
        if not encoding.needs_importance:
            print(line(encoding, x, None, arguments.runs), flush=True)
        if METHODS["importance"].writes(encoding):
            print(line(encoding, x, columns, arguments.runs), flush=True)


if __name__ == "__main__":
    main()
