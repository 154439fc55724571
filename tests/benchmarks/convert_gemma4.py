"""Gemma 4 in full dimensions, towers included, to Q4_0 GGUF and an F16 mmproj file.

Prints seconds, peak memory, the bytes of the model beside those of Google's file, and those of the mmproj file.

    python tests/benchmarks/convert_gemma4.py WORK_FOLDER [SIZE]...

SIZE is one of E2B, E4B, 12B, 26B-A4B, 31B; all of them if none is given. Weights are a hole in sparse files: they take
no space, every code gets the same value, and the table of types and the memory are those of real weights. An artifact
is deleted before the next is made; the largest takes 18 GB.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from timing import timed

import gemma4_tokenizer
from gemmaq.models.gemma4 import towers
from gemmaq.models.gemma4.hf_config import to_hf
from gemmaq.models.gemma4.names import nested_hf, shapes
from gemmaq.models.gemma4.sizes import SIZES
from gemmaq.models.size import Size
from synthetic import write_safetensors

SHARD = 5e9
GOOGLE = {"E2B": 3.35e9, "E4B": 5_154_939_136, "12B": 6.98e9, "26B-A4B": 14_439_361_440, "31B": 17_651_001_568}
"""Bytes of Google's QAT Q4_0 files."""


def source(work: Path, size: Size) -> Path:
    """A sparse checkpoint with the tensors, names and config of a size, and a small tokenizer."""
    folder = gemma4_tokenizer.write(work / f"{size.name}-it")
    config = towers.with_towers(to_hf(size.config, "bfloat16"), size.config, size.towers_config)
    (folder / "config.json").write_text(json.dumps(config))
    for name, document in towers.processor_files(size.towers_config).items():
        (folder / name).write_text(json.dumps(document))
    tensors = {nested_hf(name): shape for name, shape in shapes(size.config)}
    encoders = towers.shapes(size.towers_config, size.config.hidden_size)
    tensors |= {towers.to_hf(name): shape for name, shape in encoders}
    shards: list[dict[str, tuple[str, tuple[int, ...]]]] = [{}]
    room = SHARD
    for name, shape in tensors.items():
        size_bytes = 2 * math.prod(shape)
        if shards[-1] and size_bytes > room:
            shards.append({})
            room = SHARD
        shards[-1][name] = ("BF16", shape)
        room -= size_bytes
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(folder / file, shard, None)
        weight_map |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("sizes", nargs="*", metavar="SIZE")
    options = parser.parse_args()
    print(f"{'':8}{'wall s':>8}{'peak MB':>9}{'bytes':>16}{'Google':>16}{'mmproj':>15}")
    for size in SIZES:
        if options.sizes and size.label not in options.sizes:
            continue
        out = options.work / "out"
        command = [sys.executable, "-m", "gemmaq", "convert", source(options.work, size), "-o", out, "-q"]
        seconds, peak = timed([*command, "--force"])
        (mmproj,) = (path.stat().st_size for path in out.glob("mmproj-*.gguf"))
        written = sum(path.stat().st_size for path in out.glob("gemma-*.gguf"))
        shutil.rmtree(out)
        print(
            f"{size.label:8}{seconds:8.1f}{peak:9.0f}{written:16,}{GOOGLE[size.label]:16,.0f}{mmproj:15,}", flush=True
        )


if __name__ == "__main__":
    main()
