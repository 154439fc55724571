"""The full-size synthetic 4B with its vision tower (8.6 GB of BF16) to text GGUF, mmproj and MLX in one run.

    python tests/benchmarks/convert_4b.py WORK_FOLDER [--runs 1] [--sparse]

Real dimensions, names and config. The weights of the text are made up and those of the tower a hole in a sparse file;
with --sparse all are, which takes no disk space but gives every code the same value. Prints seconds and peak resident
memory, which is to stay below 600 MB, and the sizes written.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from timing import Timing, table, timed

from gemmaq.models.gemma3 import towers
from seeing import write_processor, write_tokenizer
from synthetic import full_size, write_checkpoint, write_safetensors

GEMMAQ = [sys.executable, "-m", "gemmaq", "convert"]
TARGET_MB = 600


def source(work: Path, sparse: bool) -> Path:
    """The checkpoint, made where it is missing: shards, names and config as published."""
    tokenizer, model = work / "tokenizer", work / ("sparse" if sparse else "weights") / "gemma-3-4b-it"
    if model.exists():
        return model
    if not tokenizer.exists():
        command = [*GEMMAQ, "sample:gemma-3-270m", "--to", "safetensors", "--quant", "bf16", "-o", tokenizer]
        subprocess.check_call(command)
    part = model.with_name("part")
    config = full_size("4b")
    write_checkpoint(part, config, shard_bytes=4_900_000_000, prefix="language_model.model.", sparse=sparse)
    shapes = dict(towers.shapes(towers.DEFAULT, config.hidden_size))
    tower = "model-vision.safetensors"
    write_safetensors(part / tower, {name: ("BF16", shape) for name, shape in shapes.items()}, None)
    index = json.loads((part / "model.safetensors.index.json").read_text())
    index["weight_map"] |= dict.fromkeys(shapes, tower)
    (part / "model.safetensors.index.json").write_text(json.dumps(index))
    text = json.loads((part / "config.json").read_text())
    published = {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model"}
    published |= {"num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": False}
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "eos_token_id": [1, 106]}
    whole |= {"boi_token_index": 255999, "eoi_token_index": 256000, "image_token_index": 262144}
    whole |= {"mm_tokens_per_image": 256, "text_config": text, "vision_config": published, "torch_dtype": "bfloat16"}
    (part / "config.json").write_text(json.dumps(whole))
    write_tokenizer(tokenizer, part)
    write_processor(part, 896, 256)
    part.rename(model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--sparse", action="store_true")
    arguments = parser.parse_args()
    model = source(arguments.folder, arguments.sparse)
    out = arguments.folder / "out"
    read = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    timings: list[Timing] = []
    for _ in range(arguments.runs):
        shutil.rmtree(out, ignore_errors=True)
        timings.append(timed([*GEMMAQ, model, "--to", "gguf", "--to", "mlx", "-q", "-o", out]))
    print(f"read {read:,} bytes; written:")
    for path in sorted(path for path in out.rglob("*") if path.suffix in (".gguf", ".safetensors")):
        print(f"  {path.relative_to(out)} {path.stat().st_size:,}")
    table({"gemmaq --to gguf --to mlx, 4B with vision": timings})
    peak = max(megabytes for _, megabytes in timings)
    print(f"peak {peak:.0f} MB, the target is {TARGET_MB}: {'kept' if peak <= TARGET_MB else 'MISSED'}")
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
