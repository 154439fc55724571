"""Memory in llama.cpp: gemmaq's figures against llama.cpp's own allocator, for every size that gemmaq estimates.

    GEMMAQ_ORACLES=FOLDER python tests/benchmarks/vram_sweep.py [SIZE]... [--quick] [--tables] [--scattered N]

Context, types of K and V, slots, unified cache, ubatch, flash attention, full window, and who runs it: about 4,000
settings of a size, minutes, or with --quick seconds for a twentieth of them. --tables takes two smaller grids instead,
432 settings of the cache and 48 of the compute buffer. Settings that both refuse are counted, one that only one of them
refuses ends the run. A difference within 0.005 MiB is none: llama.cpp prints two places.

A drafter, gemma-4-E2B-it-assistant and so on, is measured beside its target: the cache and the larger difference of the
two compute buffers. Towers, mmproj-gemma-4-E2B and so on, are measured with images of every number of tokens that a
rectangle can have, in another build of llama.cpp (xllamacpp).
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import clip
import sparse_towers
from allocator import MIB, PRINTED, Allocator, Setting, cache_grid, compute_grid, file_of, grid, load, scattered
from gemmaq.models import gemma3
from gemmaq.models.config import TextConfig
from gemmaq.models.families import require_size as require
from gemmaq.models.gemma4.sizes import SIZES
from gemmaq.models.gemma4_drafter.sizes import SIZES as DRAFTERS
from gemmaq.vram.engines.ggml_allocator import buffer_bytes
from gemmaq.vram.engines.tower_graph import image
from sparse_models import SHAPES, write

MMPROJ = "mmproj-"
_SMALLEST, _LARGEST = 256, 1120
"""Tokens of images: as many as llama.cpp prepares for, and the most."""
ALL = [
    *(size.name for size in gemma3.FAMILY.sizes),
    *SHAPES,
    *(size.name for size in DRAFTERS),
    *(MMPROJ + name for name in sparse_towers.SHAPES),
]
Away = tuple[float, float]
"""MiB by which the cache and the compute buffer are off."""
Mode = tuple[str, str]


@dataclass
class Row:
    """Settings of one size and mode: how many are refused by both, and how far off the others are."""

    refused: int = 0
    away: list[Away] = field(default_factory=list)

    def show(self, *names: str) -> None:
        exact = sum(max(map(abs, away)) <= PRINTED for away in self.away)
        cache, compute = (max((abs(away[part]) for away in self.away), default=0.0) for part in (0, 1))
        counts = f"{self.refused + len(self.away):9,}{self.refused:9,}{exact:9,}"
        print(f"{names[0]:29}{names[1]:9}{names[2]:11}{counts}{cache:10.4f}{compute:15.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "sizes", nargs="*", metavar="SIZE", help="1b, gemma-4-E2B, gemma-3n-E4B and so on; all if none is named"
    )
    parser.add_argument("--tables", action="store_true", help="the grids of cache and compute buffer alone")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the grid")
    parser.add_argument("--scattered", type=int, default=0, metavar="N", help="N settings of odd numbers beside it")
    arguments = parser.parse_args()
    start, total, worst = time.perf_counter(), Row(), (0.0, "")
    print(
        f"{'size':29}{'run by':9}{'':11}{'settings':>9}{'refused':>9}{'exact':>9}{'worst KV':>10}{'worst compute':>15}"
    )
    for name in arguments.sizes or ALL:
        rows: dict[Mode, Row] = {}
        measured = images(name.removeprefix(MMPROJ)) if name.startswith(MMPROJ) else sweep(name, arguments)
        for mode, setting, away in measured:
            for row in (rows.setdefault(mode, Row()), total):
                if away is None:
                    row.refused += 1
                else:
                    row.away.append(away)
            worst = max(worst, (max(map(abs, away or (0.0,))), f"{name}, {setting}"))
        for mode in sorted(rows):
            rows[mode].show(name, *mode)
    total.show("all", "", "")
    print(f"\nworst: {worst[0]:.4f} MiB, {worst[1]}\n{time.perf_counter() - start:.0f} s; differences in MiB")
    if worst[0] > PRINTED:
        sys.exit("not all are exact")


def sweep(name: str, arguments: argparse.Namespace) -> Iterator[tuple[Mode, str, Away | None]]:
    """How far off each setting of a size is, None where it is refused."""
    drafter = next((size for size in DRAFTERS if size.name == name), None)
    target = name if drafter is None else name.removesuffix("-it-assistant").removesuffix("-A4B")
    with TemporaryDirectory() as folder, ExitStack() as stack:
        config = model_file(target, Path(folder) / "model.gguf", long=arguments.tables)
        longest, chance = config.max_position_embeddings, random.Random(name)
        settings = [*cache_grid(), *compute_grid()] if arguments.tables else grid(longest)
        if arguments.quick:
            settings = chance.sample(settings, len(settings) // 20)
        settings += itertools.islice(scattered(longest, chance), arguments.scattered)
        model, beside = stack.enter_context(load(Path(folder) / "model.gguf")), None
        if drafter is not None:
            beside = stack.enter_context(load(file_of(drafter, Path(folder) / "mtp-model.gguf")))
            settings = [setting for setting in settings if not setting.library]
        for setting in settings:
            away = _away(setting, model, config, beside, drafter and drafter.config)
            if isinstance(away, str):
                sys.exit(f"{name}, {setting}: {away}")
            yield setting.mode, str(setting), away


def _away(
    setting: Setting, model: Allocator, config: TextConfig, beside: Allocator | None, drafter: TextConfig | None
) -> Away | str | None:
    """How far off a setting is, None where both refuse it, what they say where only one does."""
    theirs = [model.allocate(setting)] if beside is None else beside.allocate_drafter(model, setting)
    ours = setting.estimate(config, drafter)
    first = theirs and theirs[0]
    if first is None or ours is None:
        return None if first is None and ours is None else f"llama.cpp says {first}, gemmaq {ours}"
    cache, compute = first.away(ours)
    if beside is not None and theirs is not None:
        compute = max(compute, ours.draft_compute / MIB - theirs[1].compute, key=abs)
    return cache, compute


def images(name: str) -> Iterator[tuple[Mode, str, Away]]:
    """How far off the buffer for each image is; it has no cache."""
    size = next(size for size in SIZES if size.name.removesuffix("-A4B") == name)
    assert size.towers_config is not None and size.towers_config.sees is not None
    sides = range(1, _LARGEST + 1)
    shapes = {tokens: side for side in sides for tokens in range(side * side, _LARGEST + 1, side)}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mmproj.gguf"
        sparse_towers.write(path, sparse_towers.SHAPES[name])
        chosen = [(tokens, shapes[tokens]) for tokens in range(_SMALLEST, _LARGEST + 1)]
        pixels = [(48 * side, 48 * tokens // side) for tokens, side in chosen]
        for flash in (True, False):
            theirs = clip.reserved(path, pixels, flash=flash)["images"]
            for (tokens, _), buffer in zip(chosen, theirs, strict=True):
                graph = image(size.towers_config.sees, size.config.hidden_size, tokens, flash=flash)
                mode = ("server", "flash on" if flash else "flash off")
                yield mode, f"{tokens} tokens", (0.0, buffer_bytes(graph) / MIB - buffer)


def model_file(name: str, path: Path, *, long: bool) -> TextConfig:
    """Write a model's file; with `long`, one whose own context is long enough for both grids."""
    if name in SHAPES:
        shape = replace(SHAPES[name], context=max(SHAPES[name].context, 131072 if long else 0))
        write(path, shape)
        return shape.config
    size = require(name)
    file_of(size, path)
    return size.config


if __name__ == "__main__":
    main()
