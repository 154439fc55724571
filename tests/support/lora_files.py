"""Adapters written by hand, for tests without PEFT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.rows import weights
from gemmaq.files.span import Reader
from synthetic import bf16, write_safetensors

PREFIX = "base_model.model."
Q0 = "model.layers.0.self_attn.q_proj"
"""A matrix of TINY: [64, 64]."""


def config(**changes: Any) -> dict[str, Any]:
    """An adapter_config.json for q_proj of rank 4, with changes; None leaves a key out."""
    usual: dict[str, Any] = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None, "r": 4, "lora_alpha": 8,
        "target_modules": ["q_proj"], "modules_to_save": None, "bias": "none", "init_lora_weights": True,
    }  # fmt: skip
    return {key: value for key, value in (usual | changes).items() if value is not None}


def pair(rows: int, columns: int, rank: int = 4, *, module: str = Q0, seed: int = 0) -> dict[str, np.ndarray]:
    """A and B of a module, f32."""
    random = np.random.default_rng(seed)
    return {
        f"{PREFIX}{module}.lora_A.weight": random.standard_normal((rank, columns), np.float32) * np.float32(0.1),
        f"{PREFIX}{module}.lora_B.weight": random.standard_normal((rows, rank), np.float32) * np.float32(0.1),
    }


def write(
    folder: Path, settings: dict[str, Any], arrays: dict[str, np.ndarray], *, dtype: str = "F32", base: Any = None
) -> Path:
    """The folder of an adapter; `base` is what its config names."""
    folder.mkdir(parents=True, exist_ok=True)
    named = settings | ({"base_model_name_or_path": str(base)} if base is not None else {})
    (folder / "adapter_config.json").write_text(json.dumps(named))
    stored = {
        name: bf16(array) if dtype == "BF16" else array.astype("<f2" if dtype == "F16" else "<f4")
        for name, array in arrays.items()
    }
    header = {name: (dtype, array.shape) for name, array in arrays.items()}
    write_safetensors(folder / "adapter_model.safetensors", header, stored)
    return folder


def read(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Every weight of a checkpoint, f32, by canonical name."""
    with Reader() as reader:
        return {
            name: weights(tensor, 0, tensor.rows, reader).reshape(tensor.shape) + np.float32(tensor.shift)
            for name, tensor in {**checkpoint.tensors, **checkpoint.towers}.items()
        }
