"""MLX folders as mlx-vlm quantizes them, towers included: every matrix is read as mlx.core dequantizes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4_towers
from damage import header_of, safetensors_bytes
from gemmaq.checkpoint.rows import weights
from gemmaq.files.span import Reader
from gemmaq.sources.open import open_source
from inprocess import run
from runtimes import Require, need

_AFFINE = [{"group_size": group, "bits": bits} for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64)]
RECIPES: dict[str, list[dict[str, Any] | None]] = {
    "4 bits": [{"group_size": 32, "bits": 4}],
    "mixed": [*_AFFINE, None],
    "mxfp4": [{"group_size": 32, "bits": 4, "mode": "mxfp4"}],
    "nvfp4 and mxfp8": [{"group_size": 16, "bits": 4, "mode": "nvfp4"}, {"group_size": 32, "bits": 8, "mode": "mxfp8"}],
}
"""Name -> settings that modules get in turn, None for BF16."""


def quantize(folder: Path, recipe: list[dict[str, Any] | None]) -> dict[str, np.ndarray]:
    """Quantize all matrices of a folder; name -> weights of those that were."""
    import mlx.core as mx

    path = folder / "model.safetensors"
    arrays, stored, expected, modules = mx.load(str(path)), {}, {}, {}
    for number, (name, array) in enumerate(sorted(arrays.items())):
        setting, stem = recipe[number % len(recipe)], name.removesuffix(".weight")
        fits = array.ndim == 2 and name.endswith(".weight") and setting and array.shape[-1] % setting["group_size"] == 0
        modules[stem] = setting if fits else False
        if not fits:
            stored[name] = array
            continue
        parts = mx.quantize(array, **setting)
        stored |= {f"{stem}.{part}": value for part, value in zip(("weight", "scales", "biases"), parts, strict=False)}
        wide = [part.astype(mx.float32) if part.dtype == mx.bfloat16 else part for part in parts]
        expected[name] = np.array(mx.dequantize(*wide, **setting, dtype=mx.float32))
    mx.eval(stored)
    mx.save_safetensors(str(path), stored, metadata={"format": "mlx"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization"] = {**next(filter(None, recipe)), **modules}
    (folder / "config.json").write_text(json.dumps(config))
    return expected


@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "recipe"), [("effective", "mixed"), *(("dense", name) for name in RECIPES)])
def test_every_matrix_is_read_as_mlx_dequantizes_it(kind: str, recipe: str, tmp_path: Path, require: Require) -> None:
    need(require, "mlx.core")
    gemma4_towers.write(tmp_path / "gemma-4-tiny", gemma4_towers.KINDS[kind])
    expected = quantize(tmp_path / "gemma-4-tiny", RECIPES[recipe])
    checkpoint = open_source(str(tmp_path / "gemma-4-tiny"))
    assert checkpoint.towers_error is None and not checkpoint.losses
    seen = 0
    with Reader() as reader:
        for tensor in (*checkpoint.tensors.values(), *checkpoint.towers.values()):
            text = tensor.name.replace("model.", "model.language_model.", 1)
            wanted = next(
                (expected[name] for name in (tensor.name, text, f"model.{tensor.name}") if name in expected), None
            )
            if tensor.encoding.is_float:
                continue
            assert wanted is not None, tensor.name
            np.testing.assert_allclose(weights(tensor, 0, tensor.rows, reader), wanted, rtol=1e-6, atol=1e-8)
            seen += 1
    assert 0.9 * len(expected) < seen <= len(expected)
    facts = json.loads(run("inspect", tmp_path / "gemma-4-tiny", "--json").stdout)
    assert facts["vision_bytes"] > 0 and len(facts["types"]) > 1
    run("estimate-vram", tmp_path / "gemma-4-tiny", "--engine", "mlx", "--json")
    run("convert", tmp_path / "gemma-4-tiny", "--quant", "q8_0", "-q", "-o", tmp_path / "gguf")
    run("convert", tmp_path / "gemma-4-tiny", "--quant", "bf16", "--to", "safetensors", "-q", "-o", tmp_path / "bf16")
    run("verify", tmp_path / "bf16", "--against", tmp_path / "gemma-4-tiny", "-q")


@pytest.mark.oracle
def test_quantized_matrices_that_no_model_has_are_left_out(tmp_path: Path, require: Require) -> None:
    """Their width is known to nobody."""
    need(require, "mlx.core")
    folder = tmp_path / "gemma-4-tiny"
    gemma4_towers.write(folder, gemma4_towers.KINDS["dense"])
    quantize(folder, RECIPES["4 bits"])
    header, data = header_of(folder / "model.safetensors")
    for name in [name for name in header if ".layers.0.mlp.up_proj." in name or ".layers.0.self_attn.q_proj." in name]:
        header[name.replace("layers.0", "layers.7")] = header[name] | {
            "data_offsets": [len(data), len(data) + header[name]["data_offsets"][1] - header[name]["data_offsets"][0]]
        }
        data += data[slice(*header[name]["data_offsets"])]
    (folder / "model.safetensors").write_bytes(safetensors_bytes(header, data))
    notes = json.loads(run("inspect", folder, "--json").stdout)["notes"]
    assert any("left out" in note for note in notes)
