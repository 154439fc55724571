"""CPU seconds that the compiled loops take for 10^9 weights, type by type, on one thread.

    python tests/benchmarks/loops.py [TYPE]...

A slab of weights as `convert` takes it, in BF16: widened, looked at for NaN, quantized, packed; and as `verify
--against` takes it: read, decoded, and summed up as errors. Types with loops that do all this at once have two columns
more, for these. The smallest of five rounds counts, in CPU time, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.convert.compare_kernels import square_sums
from gemmaq.convert.write import SLAB_ELEMENTS
from gemmaq.encodings import ENCODINGS, codec, dequantize
from gemmaq.encodings.kernels import largest_magnitude
from gemmaq.methods import Choice, lattice

if TYPE_CHECKING:
    from gemmaq.encodings import F32, U8

COLUMNS = 1024
WIDTHS = (9, 7, 8, 7, 8, 8, 9, 8)
"""Of the table's columns."""
TYPES = ("q4_0", "q4_1", "q5_0", "q8_0", "q4_k", "q5_k", "q6_k", "affine4")


def seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """CPU seconds of this thread for 10^9 weights, of the quickest round."""
    work()  # compiles
    took = []
    for _ in range(rounds):
        begun = time.thread_time()
        work()
        took.append(time.thread_time() - begun)
    return min(took) / SLAB_ELEMENTS * 1e9


def at_once(name: str, stored: U8) -> tuple[float, float]:
    """Seconds to quantize and pack BF16 bytes in one loop, and to sum errors up in one; 0 without such a loop."""
    loops, bits = codec(ENCODINGS[name]), stored.view(np.uint16)
    fused, errors = loops.fused, loops.errors
    if fused is None:
        return 0.0, 0.0
    made = fused(bits)[0]
    return seconds(lambda: fused(bits)), seconds(lambda: errors(bits, made)) if errors is not None else 0.0


def row(name: str, weights: F32) -> tuple[float, ...]:
    """Seconds to quantize, pack, read, decode and to sum errors up; 0 for what MLX's own types do elsewhere."""
    encoding = ENCODINGS[name]
    loops = codec(encoding)
    nearest, pack, read = loops.nearest, loops.pack, loops.read
    assert nearest is not None
    values = nearest(weights)
    decoded = dequantize(encoding, values)
    packing = reading = 0.0
    if pack is not None and read is not None:
        packed = pack(values)
        packing, reading = seconds(lambda: pack(values)), seconds(lambda: read(packed))
    return (
        seconds(lambda: nearest(weights)),
        packing,
        reading,
        seconds(lambda: dequantize(encoding, values)),
        seconds(lambda: square_sums(decoded, 0.0, weights, 0.0)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", default=TYPES)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    floats = codec(ENCODINGS["bf16"])
    assert floats.pack is not None and floats.read is not None
    drawn = (rng.standard_normal((SLAB_ELEMENTS // COLUMNS, COLUMNS)) * 0.02).astype(np.float32)
    stored = floats.pack(drawn)
    weights = floats.read(stored)
    widen = seconds(lambda: floats.read(stored))
    check = seconds(lambda: largest_magnitude(stored.reshape(-1).view(np.uint16), np.uint16(0x7FFF)))
    print(f"widen {widen:.2f}, look for NaN {check:.2f}")
    names = ("quantize", "pack", "in all", "read", "decode", "errors", "at once", "errors")
    print(" " * 10 + "".join(f"{title:>{width}}" for title, width in zip(names, WIDTHS, strict=True)))
    for name in arguments.types:
        quantize, pack, read, decode, errors = row(name, weights)
        costs = (quantize, pack, widen + check + quantize + pack, read, decode, errors, *at_once(name, stored))
        print(f"{name:10}" + "".join(f"{one:{width}.2f}" for one, width in zip(costs, WIDTHS, strict=True)))
    steps = (1 + rng.random((SLAB_ELEMENTS // 32, 1))) * 0.002
    grid = (rng.integers(-8, 8, (SLAB_ELEMENTS // 32, 32)) * steps).astype(np.float32).reshape(-1, COLUMNS)
    trained = floats.read(floats.pack(grid))
    took = seconds(lambda: lattice.quantize(trained, ENCODINGS["q4_0"], Choice("lattice")))
    print(f"q4_0 of a QAT checkpoint, quantize {took:.2f}")


if __name__ == "__main__":
    main()
