"""int4 and int8 as compressed-tensors: transformers loads the very weights of the GGUF, the library the very words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtimes
from gemmaq.encodings.bitstream import pack_codes
from oracles import read_gguf
from runtimes import Text, need

pytestmark = pytest.mark.filterwarnings("ignore:You passed `quantization_config`")

WEIGHTS = {"type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "dynamic": False}


@pytest.fixture(scope="module")
def folder(sample_portable: Path, gemmaq, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portable GGUF as compressed-tensors."""
    out = tmp_path_factory.mktemp("ct") / "out"
    gemmaq("convert", sample_portable, "--to", "safetensors", "-o", out)
    return out


def load(folder: Path, **options: Any) -> Any:
    """A folder in transformers, f32, nothing missing and nothing too much."""
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **options)
    assert not any(info.values()), info
    return model.eval()


def load_dense(folder: Path) -> Any:
    """A folder in transformers, dequantized while it is read."""
    from transformers import CompressedTensorsConfig

    return load(folder, quantization_config=CompressedTensorsConfig(dequantize=True))


def settings_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "config.json").read_text())["quantization_config"]
    return result


def linears(model: Any) -> dict[str, Any]:
    """Name -> weights of the matrices of the layers."""
    import torch

    return {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }


@contextmanager
def embedding_of(model: Any, other: Any) -> Iterator[None]:
    """Lend a model the embedding of another."""
    embedding = model.model.embed_tokens.weight
    own = embedding.data
    embedding.data = other.model.embed_tokens.weight.data
    try:
        yield
    finally:
        embedding.data = own


@pytest.mark.slow
@pytest.mark.oracle
def test_transformers_computes_what_the_gguf_says(
    folder: Path, sample_model: Any, sample_text: Text, require: runtimes.Require
) -> None:
    need(require, "compressed_tensors")
    import torch

    model = load(folder)
    logits = runtimes.logits(model, sample_text.ids)  # unpacks the weights, in f32
    ours, theirs = linears(model), linears(sample_model)
    assert ours.keys() == theirs.keys() and len(ours) == 126
    assert [name for name, weights in theirs.items() if not torch.equal(ours[name], weights)] == []
    embedding = model.model.embed_tokens.weight
    assert torch.equal(embedding, sample_model.model.embed_tokens.weight.bfloat16().float())
    assert sample_text.agrees(logits)
    with embedding_of(sample_model, model):
        same = Text(sample_text.ids, runtimes.logits(sample_model, sample_text.ids))
    assert same.distance(logits) < 1e-5


@pytest.mark.slow
@pytest.mark.oracle
def test_transformers_loads_it_dense(
    folder: Path, sample_model: Any, sample_text: Text, require: runtimes.Require
) -> None:
    need(require, "compressed_tensors")
    import torch

    model = load_dense(folder)
    ours, theirs = linears(model), linears(sample_model)
    # transformers multiplies code and scale in the dtype of the stored scale, whatever dtype is asked for
    assert [name for name, weights in theirs.items() if not torch.equal(ours[name], weights.bfloat16().float())] == []
    assert sample_text.agrees(runtimes.logits(model, sample_text.ids))


@pytest.mark.oracle
@pytest.mark.parametrize("bits", [4, 8])
def test_words_are_those_of_the_library(bits: int, require: runtimes.Require) -> None:
    need(require, "compressed_tensors")
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32

    codes = np.random.default_rng(bits).integers(0, 1 << bits, (7, 96), np.uint8)
    signed = torch.from_numpy((codes.astype(np.int16) - (1 << bits - 1)).astype(np.int8))
    ours = pack_codes(bits, codes).view(np.int32)
    np.testing.assert_array_equal(ours, pack_to_int32(signed, bits).numpy())
    assert torch.equal(unpack_from_int32(torch.from_numpy(ours), bits, torch.Size(codes.shape)), signed)


def test_arrays_and_settings(folder: Path) -> None:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "np") as file:
        names = set(file.keys())
        stem = "model.layers.3.mlp.down_proj.weight"
        shapes = {name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in names}
        sizes = [
            file.get_tensor(name).tolist() for name in (f"{stem}_shape", "model.layers.3.mlp.up_proj.weight_shape")
        ]
    assert sizes == [[640, 2048], [2048, 640]]
    assert shapes[f"{stem}_packed"] == ("I32", [640, 2048 // 8])
    assert shapes[f"{stem}_scale"] == ("BF16", [640, 2048 // 32])
    assert shapes[f"{stem}_shape"] == ("I64", [2])
    assert shapes["model.embed_tokens.weight"] == ("BF16", [262144, 640])
    assert stem not in names and "lm_head.weight" not in names
    assert settings_of(folder) == {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**WEIGHTS, "num_bits": 4},
                "input_activations": None,
                "output_activations": None,
            }
        },
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


@pytest.mark.oracle
def test_the_library_accepts_the_settings(folder: Path, require: runtimes.Require) -> None:
    need(require, "compressed_tensors")
    from compressed_tensors.quantization import QuantizationConfig

    settings = QuantizationConfig.model_validate(settings_of(folder))
    weights = settings.config_groups["group_0"].weights
    assert (weights.num_bits, weights.group_size, weights.symmetric, weights.dynamic) == (4, 32, True, False)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["q4_0", "q8_0", "mixed"])
def test_small_models_load_with_the_weights_of_their_gguf(
    kind: str, tiny: Path, gemmaq, tmp_path: Path, require: runtimes.Require
) -> None:
    """int8 too, and both with some matrices left alone, by a recipe."""
    need(require, "compressed_tensors")
    import torch

    recipe = tmp_path / "mixed.toml"
    recipe.write_text(
        'quant = "q4_0"\nembedding = "bf16"\n'
        '[[rules]]\nmatch = "*.v_proj.weight"\ntype = "q8_0"\n[[rules]]\nmatch = "*.layers.2.mlp.*"\ntype = "bf16"\n'
    )
    options = ("--recipe", recipe) if kind == "mixed" else ("--quant", kind, "--embedding", "bf16")
    gemmaq("convert", tiny, *options, "--to", "safetensors", "--to", "gguf", "-o", tmp_path / "out")
    out = tmp_path / "out/safetensors"
    settings = settings_of(out)
    groups = settings["config_groups"].values()
    bits = {"q4_0": [4], "q8_0": [8], "mixed": [4, 8]}[kind]
    assert [group["weights"] for group in groups] == [{**WEIGHTS, "num_bits": number} for number in bits]
    left = [f"model.layers.2.mlp.{name}_proj" for name in ("gate", "up", "down")] if kind == "mixed" else []
    assert settings["ignore"] == ["lm_head", *left]
    model = load(out)
    with torch.no_grad():
        assert model(torch.tensor([[2, 5, 7]])).logits.isfinite().all()
    ours = dict(model.named_parameters())
    file = next((tmp_path / "out/gguf").glob("*.gguf"))
    for name, weights in runtimes.gguf_weights(file):
        assert torch.equal(ours[name], weights), name
    assert len(read_gguf(file)[1]) == sum(name.endswith(".weight") for name in ours)
    assert not any(torch.isnan(weights).any() for weights in load_dense(out).parameters())
