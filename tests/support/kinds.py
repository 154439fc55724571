"""What is made, and how."""

from __future__ import annotations

from pathlib import Path

KINDS: dict[str, tuple[str, ...]] = {
    "gguf": ("--quant", "q4_0", "--max-shard-size", "50k"),
    "mlx": ("--to", "mlx"),
    "affine": ("--to", "mlx", "--quant", "affine4", "--max-shard-size", "50k"),
    "compressed-tensors": ("--to", "safetensors"),
    "bf16": ("--to", "safetensors", "--quant", "bf16", "--max-shard-size", "100k"),
    "several": ("--to", "gguf", "--to", "mlx", "--to", "safetensors", "--scales", "f16"),
    "mmproj": ("--quant", "q8_0"),
    "seeing mlx": ("--to", "mlx"),
    "seeing bf16": ("--to", "safetensors", "--quant", "bf16"),
}
"""Artifacts, and what makes them; those that see of a checkpoint that does."""


def folders(artifact: Path) -> list[Path]:
    """The artifact's folder, or those of its containers."""
    parts = [artifact / part for part in ("gguf", "mlx", "safetensors")]
    return [part for part in parts if part.is_dir()] or [artifact]
