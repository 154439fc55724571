"""Repositories small enough to be fetched a hundred times, and what is in folders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

REPO = "google/gemma-3-tiny"


def noise(size: int, seed: int) -> bytes:
    """Bytes that no other seed gives."""
    return hashlib.shake_256(b"%d" % seed).digest(size)


def safetensors(size: int, seed: int) -> bytes:
    """A valid file with one tensor of noise, `size` bytes in all."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size - 128], "data_offsets": [0, size - 128]}})
    return (120).to_bytes(8, "little") + header.encode().ljust(120) + noise(size - 128, seed)


def shards(count: int, size: int) -> dict[str, bytes]:
    """A repository of several shards of noise that a pull fetches and nothing else can use."""
    names = [f"model-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]
    return {
        "config.json": b'{"model_type": "gemma3_text"}\n',
        "README.md": b"---\nlicense: gemma\n---\n",
        "model.safetensors.index.json": json.dumps({"weight_map": {f"w{name}": name for name in names}}).encode(),
        **{name: safetensors(size, seed) for seed, name in enumerate(names)},
    }


def tree(folder: Path | str) -> dict[str, bytes]:
    """Every file of a folder, hidden ones left out."""
    root = Path(folder)
    paths = (path for path in root.rglob("*") if path.is_file())
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    return {name: data for name, data in found.items() if not name.startswith(".")}
