"""Floating point codes as compressed-tensors: the library decompresses the weights that gemmaq means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.rows import weights
from gemmaq.files.span import Reader
from gemmaq.sources.open import open_source
from inprocess import run
from runtimes import Require, need

TYPES = ("mxfp4", "mxfp8", "fp8", "nvfp4")
FORMATS = {
    "mxfp4": "mxfp4-pack-quantized",
    "mxfp8": "mxfp8-quantized",
    "fp8": "float-quantized",
    "nvfp4": "nvfp4-pack-quantized",
}
Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def folders(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Type -> a folder in it."""
    root = tmp_path_factory.mktemp("schemes")
    for name in TYPES:
        run("convert", tiny, "--to", "safetensors", "--quant", name, "-q", "-o", root / name)
    return {name: root / name for name in TYPES}


def matrix(checkpoint: Checkpoint, name: str) -> np.ndarray:
    with Reader() as reader:
        return weights(checkpoint.tensors[name], 0, checkpoint.tensors[name].rows, reader)


def settings(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())["quantization_config"]
    return found


@pytest.mark.oracle
@pytest.mark.parametrize("name", TYPES)
def test_the_library_decompresses_the_same_weights(name: str, folders: dict[str, Path], require: Require) -> None:
    need(require, "torch", "compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from safetensors.torch import load_file

    config = QuantizationConfig.model_validate(settings(folders[name]))
    (group,) = config.config_groups.values()
    arrays = load_file(folders[name] / "model.safetensors")
    state = {key.rpartition(".")[2]: array for key, array in arrays.items() if key.startswith(f"{Q_PROJ}.")}
    theirs = BaseCompressor.get_value_from_registry(FORMATS[name]).decompress(state, group)["weight"]
    ours = matrix(open_source(str(folders[name])), f"{Q_PROJ}.weight")
    rounding = 2.0**-7 if name in ("fp8", "nvfp4") else 0  # the library multiplies in BF16
    np.testing.assert_allclose(theirs.float().numpy(), ours, rtol=rounding, atol=0)


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
def test_transformers_computes_with_these_weights(
    name: str, folders: dict[str, Path], tmp_path: Path, require: Require
) -> None:
    need(require, "torch", "transformers", "compressed_tensors")
    import torch
    from transformers import AutoModelForCausalLM

    run("convert", folders[name], "--to", "safetensors", "--quant", "bf16", "-q", "-o", tmp_path / "bf16")
    ids, answers = torch.tensor([[2, *range(100, 140)]]), []
    for folder in (folders[name], tmp_path / "bf16"):
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values()), info
        with torch.no_grad():
            answers.append(model(ids).logits.float().numpy())
    if name in ("fp8", "nvfp4"):  # inputs are rounded too, or the library multiplies in BF16
        assert np.abs(answers[0] - answers[1]).max() < 0.2 * np.ptp(answers[1])
    else:
        np.testing.assert_array_equal(*answers)


def test_settings_are_those_of_the_format(folders: dict[str, Path]) -> None:
    for name, folder in folders.items():
        found = settings(folder)
        assert found["format"] == FORMATS[name] and found["ignore"] == ["lm_head"]
        (group,) = found["config_groups"].values()
        assert group["targets"] == ["Linear"] and group["weights"]["type"] == "float"
        assert (group["input_activations"] is None) == (name != "fp8")
        assert group["weights"].get("scale_dtype") == {"fp8": None, "nvfp4": "torch.float8_e4m3fn"}.get(
            name, "torch.uint8"
        )


def test_several_types_have_a_format_each(tiny: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mixed.toml"
    recipe.write_text(
        'description = "mixed"\nquant = "mxfp4"\n\n[[rules]]\nmatch = "*.layers.0.*"\ntype = "mxfp8"\n'
        '\n[[rules]]\nmatch = "*.layers.1.*"\ntype = "q8_0"\n'
    )
    run("convert", tiny, "--to", "safetensors", "--recipe", recipe, "-q", "-o", tmp_path / "out")
    found = settings(tmp_path / "out")
    assert found["format"] == "mixed-precision"
    formats = [(group["format"], group["weights"]["num_bits"]) for group in found["config_groups"].values()]
    assert formats == [("mxfp4-pack-quantized", 4), ("mxfp8-quantized", 8), ("pack-quantized", 8)]
    again = open_source(str(tmp_path / "out"))
    kinds = {again.tensors[f"model.layers.{n}.mlp.up_proj.weight"].encoding.name for n in range(3)}
    assert kinds == {"mxfp4", "mxfp8", "q8_0"}
