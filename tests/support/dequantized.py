"""Folders of F32 weights from quantized folders of Gemma 4, without gemmaq: MLX's arithmetic, or the codes' formula."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np


def of_mlx(folder: Path, source: Path, target: Path) -> Path:
    """A folder like the source with the weights of an MLX folder, dequantized by MLX."""
    import mlx.core as mx

    settings = json.loads((folder / "config.json").read_text()).get("quantization", {})
    usual = {name: settings.get(name) for name in ("group_size", "bits")}
    arrays = mx.load(str(folder / "model.safetensors"))
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        module = name.removesuffix(".weight")
        if name.endswith((".scales", ".biases")):
            continue
        wide = array
        if f"{module}.scales" in arrays:
            how = settings.get(module, usual)
            parts = (arrays[f"{module}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
            wide = mx.dequantize(array, *parts, how["group_size"], how["bits"])
        found[_in_transformers(name)] = _channels_first(name, np.array(wide.astype(mx.float32)))
    return _folder(_joined(found), source, target)


def _in_transformers(name: str) -> str:
    return "model." + name.replace("language_model.model.", "language_model.")


def _channels_first(name: str, weights: np.ndarray) -> np.ndarray:
    if "conv.weight" in name or "conv1d.weight" in name:
        return np.moveaxis(weights, -1, 1)
    return weights


def _joined(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Experts' stacks as transformers has them: gate and up projection in one."""
    for gate in [name for name in found if name.endswith("switch_glu.gate_proj.weight")]:
        stem = gate.removesuffix("switch_glu.gate_proj.weight")
        up, down = (found.pop(f"{stem}switch_glu.{part}_proj.weight") for part in ("up", "down"))
        found[stem + "gate_up_proj"], found[stem + "down_proj"] = np.concatenate([found.pop(gate), up], 1), down
    return found


def of_compressed_tensors(folder: Path, source: Path, target: Path) -> Path:
    """The same of a folder of compressed-tensors: a code, less half the number of codes, times its scale."""
    from safetensors.torch import load_file

    arrays = load_file(folder / "model.safetensors")
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        module, _, suffix = name.rpartition(".")
        if suffix == "weight_packed":
            rows, columns = arrays[f"{module}.weight_shape"].tolist()
            scales = arrays[f"{module}.weight_scale"].float().numpy()
            bits = 32 * array.shape[1] // columns
            codes = array.numpy().view(np.uint32)[:, :, None] >> np.arange(0, 32, bits, dtype=np.uint32)
            signed = (codes & (2**bits - 1)).reshape(rows, columns).astype(np.float32) - 2 ** (bits - 1)
            found[f"{module}.weight"] = signed * scales.repeat(columns // scales.shape[1], 1)
        elif suffix not in ("weight_scale", "weight_shape"):
            found[name] = array.float().numpy()
    return _folder(found, source, target)


def _folder(weights: dict[str, np.ndarray], source: Path, target: Path) -> Path:
    from safetensors.numpy import save_file

    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, target)
    contiguous: dict[str, Any] = {name: np.array(array, order="C") for name, array in weights.items()}
    save_file(contiguous, target / "model.safetensors", metadata={"format": "pt"})
    return target
