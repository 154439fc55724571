"""Memory in llama.cpp: gemmaq's figures against llama.cpp's own allocator, 20,000 settings of all five sizes.

    GEMMAQ_ORACLES=FOLDER python tests/benchmarks/vram_sweep.py [SIZE]... [--quick] [--scattered N]

Context, types of K and V, slots, unified cache, ubatch, flash attention, full window, and who runs it; minutes, or with
--quick seconds for a twentieth of them. Settings that both refuse are counted, one that only one of them refuses
ends the run. A difference within 0.005 MiB is none: llama.cpp prints two places.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from allocator import PRINTED, Setting, grid, load, scattered, sparse_gguf
from gemmaq.containers import gguf
from gemmaq.models.families import require_size as require
from gemmaq.models.gemma3.sizes import SIZES
from gemmaq.models.size import Size
from gemmaq.planning import recipe
from gemmaq.planning.planner import make_plan
from gemmaq.planning.request import Request
from gemmaq.vram.weights import checkpoint_of

Away = tuple[float, float]
"""MiB by which the cache and the compute buffer are off."""


@dataclass
class Row:
    """Settings of one size and mode: how many are refused by both, and how far off the others are."""

    refused: int = 0
    away: list[Away] = field(default_factory=list)

    def show(self, *names: str) -> None:
        exact = sum(max(map(abs, away)) <= PRINTED for away in self.away)
        cache, compute = (max((abs(away[part]) for away in self.away), default=0.0) for part in (0, 1))
        counts = f"{self.refused + len(self.away):9,}{self.refused:9,}{exact:9,}"
        print(f"{names[0]:6}{names[1]:9}{names[2]:11}{counts}{cache:10.4f}{compute:15.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", metavar="SIZE", help="1b, 27b and so on; all if none is named")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the grid")
    parser.add_argument("--scattered", type=int, default=0, metavar="N", help="N settings of odd numbers beside it")
    arguments = parser.parse_args()
    start, total, worst = time.perf_counter(), Row(), (0.0, "")
    print(
        f"{'size':6}{'run by':9}{'':11}{'settings':>9}{'refused':>9}{'exact':>9}{'worst KV':>10}{'worst compute':>15}"
    )
    for size in [require(name) for name in arguments.sizes] or SIZES:
        rows: dict[tuple[str, str], Row] = {}
        for setting, away in sweep(size, 20 if arguments.quick else 1, arguments.scattered):
            for row in (rows.setdefault(setting.mode, Row()), total):
                if away is None:
                    row.refused += 1
                else:
                    row.away.append(away)
            worst = max(worst, (max(map(abs, away or (0.0,))), f"{size.label}, {setting}"))
        for mode in sorted(rows):
            rows[mode].show(size.label, *mode)
    total.show("all", "", "")
    print(f"\nworst: {worst[0]:.4f} MiB, {worst[1]}\n{time.perf_counter() - start:.0f} s; differences in MiB")
    if worst[0] > PRINTED:
        sys.exit("not all are exact")


def sweep(size: Size, share: int, odd: int) -> Iterator[tuple[Setting, Away | None]]:
    """How far off each setting of a size is, None where it is refused."""
    longest, chance = size.config.max_position_embeddings, random.Random(size.label)
    settings = grid(longest)
    if share > 1:
        settings = chance.sample(settings, len(settings) // share)
    plan = make_plan(
        checkpoint_of(size),
        Request(recipe.of("q4_0", embedding=None, method="nearest"), ("gguf",), mmproj=None),
        gguf.FORMAT,
    )
    with TemporaryDirectory() as folder, load(sparse_gguf(Path(folder) / "model.gguf", size.config, plan)) as model:
        for setting in itertools.chain(settings, itertools.islice(scattered(longest, chance), odd)):
            theirs, ours = model.allocate(setting), setting.estimate(size.config)
            if (theirs is None) != (ours is None):
                sys.exit(f"{size.label}, {setting}: llama.cpp says {theirs}, gemmaq {ours}")
            yield setting, None if theirs is None or ours is None else theirs.away(ours)


if __name__ == "__main__":
    main()
