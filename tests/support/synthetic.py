"""Checkpoints with the real dimensions and made-up weights, for tests and benchmarks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemmaq.models.families import require_size as require
from gemmaq.models.gemma3.config import TextConfig, pattern, to_hf
from gemmaq.models.gemma3.names import shapes

TINY = TextConfig(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=7,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    vocab_size=320,
    max_position_embeddings=2048,
    sliding_window=64,
    query_pre_attn_scalar=32,
    layer_pattern=pattern(7, 6),
)
"""A model of the right shape that takes milliseconds."""
EVEN = replace(
    TINY, hidden_size=128, intermediate_size=256, head_dim=64, num_hidden_layers=9, layer_pattern=pattern(9, 6)
)
"""A model whose rows are multiples of 128, with layers enough for mixtures."""


def bf16(values: np.ndarray) -> np.ndarray:
    """F32 -> BF16 bits, u16, to nearest even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def weights(config: TextConfig, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """BF16 bits of every tensor: normal weights, norms around zero."""
    random = np.random.default_rng(seed)
    block = bf16(random.standard_normal(1 << 22, np.float32) * np.float32(0.03))
    for name, shape in shapes(config):
        count = int(np.prod(shape))
        start = int(random.integers(0, 1 << 20))
        yield name, np.resize(np.roll(block, start), count).reshape(shape)


def write_safetensors(
    path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]], data: dict[str, np.ndarray] | None
) -> None:
    """A safetensors file of name -> (dtype, shape); with `data` None its weights are a hole in a sparse file."""
    sizes = {"BF16": 2, "F16": 2, "F32": 4, "I64": 8}
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        count = int(np.prod(shape)) * sizes[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + count]}
        at += count
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in tensors if data is not None else ():
            file.write(data[name].tobytes())
        file.truncate(8 + len(text) + at)


def write_checkpoint(
    folder: Path,
    config: TextConfig,
    *,
    shard_bytes: int = 1 << 30,
    prefix: str = "model.",
    sparse: bool = False,
    tokenizer: Path | None = None,
    seed: int = 0,
) -> Path:
    """A Hugging Face folder; sharded with an index if it does not fit one shard.

    Args:
        prefix: in place of the canonical `model.`.
        sparse: leave a hole instead of weights.
        tokenizer: folder whose tokenizer files are copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_hf(config, "bfloat16")))
    shards: list[dict[str, tuple[str, tuple[int, ...]]]] = [{}]
    room = shard_bytes
    for name, shape in shapes(config):
        size = 2 * int(np.prod(shape))
        if shards[-1] and size > room:
            shards.append({})
            room = shard_bytes
        shards[-1][prefix + name.removeprefix("model.")] = ("BF16", shape)
        room -= size
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
        weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    source = weights(config, seed)
    for file, shard in zip(names, shards, strict=True):
        data = None if sparse else {name: next(source)[1] for name in shard}
        write_safetensors(folder / file, shard, data)
    if tokenizer is not None:
        for path in tokenizer.iterdir():
            if "token" in path.name or path.suffix == ".jinja":
                shutil.copy(path, folder / path.name)
    return folder


def full_size(label: str) -> TextConfig:
    """The dimensions of a published size."""
    return replace(require(label).config)
