"""Gemma 4 in every spelling of a folder: as released, saved by transformers, quantized, and from GGUF files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
import runtimes
from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.rows import weights
from gemmaq.files.span import Reader
from gemmaq.models.gemma4 import names
from gemmaq.models.gemma4.config import TextConfig
from gemmaq.sources.open import open_source
from inprocess import run
from oracles import llama_quantize, need_ggml, read_gguf
from runtimes import Require, need


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return gemma4.folders(tmp_path_factory.mktemp("gemma4"))


def same(found: Checkpoint, expected: Checkpoint) -> bool:
    """Whether two checkpoints are of one model with equal weights."""
    assert found.config == expected.config and list(found.tensors) == list(expected.tensors)
    with Reader() as reader:
        for name, tensor in found.tensors.items():
            pair = [weights(t, 0, t.rows, reader) + np.float32(t.shift) for t in (tensor, expected.tensors[name])]
            assert np.array_equal(*pair), name
    return True


def released(config: TextConfig, *, unified: bool = False) -> dict[str, Any]:
    """A config.json with the flat keys of a release with towers."""
    from gemmaq.models.gemma4.hf_config import nested, to_hf

    document = nested(to_hf(config, "bfloat16"))
    if unified:
        document |= {"architectures": ["Gemma4UnifiedForConditionalGeneration"], "model_type": "gemma4_unified"}
        document["text_config"]["model_type"] = "gemma4_unified_text"
    return document


@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_a_release_is_read_like_a_text_model(sources: dict[str, Path], tmp_path: Path, kind: str) -> None:
    """Names with `language_model.`, and keys and values in layers that use those of others, which are left out."""
    config = gemma4.KINDS[kind]
    tensors = {f"model.language_model.{name[6:]}": values for name, values in gemma4.weights(config)}
    for layer in range(config.own_layers, config.num_hidden_layers):
        width = config.head_dim if config.layer_pattern[layer] else config.global_head_dim
        for part, shape in (
            ("k_proj.weight", (width, 256)),
            ("v_proj.weight", (width, 256)),
            ("k_norm.weight", (width,)),
        ):
            tensors[f"model.language_model.layers.{layer}.self_attn.{part}"] = np.ones(shape, np.float32)
    folder = gemma4.write(tmp_path / f"gemma-4-{kind}", config, tensors)
    (folder / "config.json").write_text(json.dumps(released(config, unified=kind == "unified")))
    found = open_source(str(folder))
    assert same(found, open_source(str(sources[kind])))
    surplus = [
        "left out, no runtime reads them: model.language_model.layers.5.self_attn.k_proj.weight and 14 more tensors"
    ]
    assert list(found.notes) == (surplus if kind == "effective" else [])


@pytest.mark.oracle
@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_what_transformers_saves_is_read(sources: dict[str, Path], tmp_path: Path, require: Require, kind: str) -> None:
    """With `per_layer_config` in place of the flat keys."""
    need(require, "torch", "transformers")
    import torch
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(sources[kind], dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert "per_layer_config" in json.loads((tmp_path / "config.json").read_text())
    assert same(open_source(str(tmp_path)), open_source(str(sources[kind])))


QUANTIZED = {
    "mlx": ("--to", "mlx"),
    "mlx affine": ("--to", "mlx", "--quant", "affine4-g64"),
    "compressed-tensors": ("--to", "safetensors", "--max-shard-size", "1m"),
    "gguf": ("--quant", "q4_k_m"),
    "gguf bf16": ("--quant", "bf16"),
}


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(
    ("kind", "way"),
    [
        *(("effective", way) for way in ("mlx affine", "compressed-tensors", "gguf bf16")),
        *(("experts", way) for way in ("mlx", "compressed-tensors", "gguf")),
    ],
)
def test_what_we_write_becomes_a_folder_that_transformers_loads(
    sources: dict[str, Path], tmp_path: Path, require: Require, kind: str, way: str
) -> None:
    need(require, "torch", "transformers")
    run("convert", sources[kind], *QUANTIZED[way], "-o", tmp_path / "made")
    made = next((tmp_path / "made").glob("*.gguf"), tmp_path / "made")
    run("convert", made, "--to", "safetensors", "--quant", "f32", "-o", tmp_path / "home")
    assert same(open_source(str(tmp_path / "home")), open_source(str(made)))
    loaded = runtimes.whole(tmp_path / "home").state_dict()
    original = dict(gemma4.weights(gemma4.KINDS[kind]))
    for name in (names.EMBEDDING, "model.layers.5.mlp.down_proj.weight", "model.layers.0.router.proj.weight"):
        if name in original:
            error = np.square(loaded[name].numpy() - original[name]).sum() / np.square(original[name]).sum()
            assert error < (1e-5 if way == "gguf bf16" else 0.02), name


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["effective", "experts"])
def test_files_of_llama_quantize_become_folders(
    sources: dict[str, Path], tmp_path: Path, require: Require, kind: str
) -> None:
    """Of a K mixture, whose types follow the layer and the tensor."""
    need_ggml(require)
    need(require, "torch", "transformers")
    run("convert", sources[kind], "--quant", "bf16", "-o", tmp_path / "gguf")
    theirs = tmp_path / f"gemma-4-{kind}-Q4_K_M.gguf"
    llama_quantize(next((tmp_path / "gguf").glob("*.gguf")), theirs, "q4_k_m")
    assert "rope_freqs.weight" in read_gguf(theirs)[1]
    run("convert", theirs, "--to", "safetensors", "--quant", "bf16", "-o", tmp_path / "home")
    runtimes.whole(tmp_path / "home")
    assert open_source(str(tmp_path / "home")).config == open_source(str(sources[kind])).config
