"""Weights on the int4 grids that QAT checkpoints are published on, and folders with such weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gemmaq.models.gemma3.names import EMBEDDING
from synthetic import bf16

Grid = tuple[np.ndarray, np.ndarray]
"""Scales f32 [blocks] and signed codes [blocks, 32]."""


def wide(bits: np.ndarray) -> np.ndarray:
    """BF16 bits -> f32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _symmetric(x: np.ndarray, scales: np.ndarray, low: int = -7) -> Grid:
    safe = np.where(scales == 0, 1, scales)
    return scales, np.clip(np.rint(x.reshape(-1, 32) / safe[:, None]), low, 7)


def _absmax(x: np.ndarray) -> np.ndarray:
    return np.abs(x.reshape(-1, 32)).max(axis=1)


def extremum(x: np.ndarray) -> Grid:
    """ggml's own rule: the weight of largest magnitude has code -8."""
    blocks = x.reshape(-1, 32)
    scales = blocks[np.arange(len(blocks)), np.abs(blocks).argmax(axis=1)] / np.float32(-8)
    return scales, np.clip(np.floor(blocks / scales[:, None] + 8.5), 0, 15) - 8


def absmax_7(x: np.ndarray) -> Grid:
    return _symmetric(x, _absmax(x) / np.float32(7))


def absmax_7_5(x: np.ndarray) -> Grid:
    return _symmetric(x, _absmax(x) / np.float32(7.5), -8)


def per_channel(x: np.ndarray) -> Grid:
    return _symmetric(x, np.repeat(np.abs(x).max(axis=1) / np.float32(7), x.shape[1] // 32))


def free(x: np.ndarray) -> Grid:
    """A scale of its own for every block, none of which reaches an end code."""
    share = np.random.default_rng(1).uniform(4.0, 6.4, x.size // 32)
    return _symmetric(x, (_absmax(x) / share).astype(np.float32))


RULES: dict[str, Callable[[np.ndarray], Grid]] = {
    "extremum/-8": extremum,
    "absmax/7": absmax_7,
    "absmax/7.5": absmax_7_5,
    "per channel": per_channel,
    "free scale": free,
}
"""What gemmaq calls a rule -> the rule."""


def regrid(folder: Path, out: Path, rule: str, *, embedding: bool = False) -> Path:
    """A copy of a BF16 folder whose matrices of the layers, and the embedding if asked for, lie on a grid."""
    shutil.copytree(folder, out)
    for path in out.glob("*.safetensors"):
        content = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        for name, entry in header.items():
            if name == "__metadata__" or len(entry["shape"]) < 2 or (name == EMBEDDING and not embedding):
                continue
            begin, end = (start + at for at in entry["data_offsets"])
            x = wide(np.frombuffer(content[begin:end], np.uint16)).reshape(entry["shape"])
            scales, codes = RULES[rule](x)
            content[begin:end] = bf16(wide(bf16(scales))[:, None] * codes).tobytes()
        path.write_bytes(content)
    return out


def trained_for_q4_0(x: np.ndarray) -> np.ndarray:
    """Weights rounded to extremum/-8 with FP16 scales, as QAT for Q4_0 leaves them in BF16."""
    scales, _ = extremum(x)
    scales = scales.astype(np.float16).astype(np.float32)[:, None]
    codes = np.clip(np.rint(x.reshape(-1, 32) / np.where(scales == 0, 1, scales)), -8, 7)
    return wide(bf16((scales * codes).astype(np.float32))).reshape(x.shape)
