"""MLX folders: mlx-lm computes what a GGUF file says."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtimes
from damage import contained
from runtimes import Text, need

FILES = {"config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"}
TOKENIZER = {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"}


@pytest.fixture(scope="module")
def folder(sample_portable: Path, gemmaq, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portable GGUF as MLX."""
    out = tmp_path_factory.mktemp("mlx") / "out"
    gemmaq("convert", sample_portable, "--to", "mlx", "-o", out)
    return out


def header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        result: dict[str, Any] = json.loads(file.read(size))
    return result


@contextmanager
def scaled_like_mlx(model: Any) -> Iterator[None]:
    """mlx-lm rounds the factor on the embedding, the root of the hidden size, to BF16; transformers does not."""
    import torch

    embedding = model.model.embed_tokens
    exact = embedding.embed_scale.clone()
    embedding.embed_scale.copy_(exact.to(torch.bfloat16))
    try:
        yield
    finally:
        embedding.embed_scale.copy_(exact)


@pytest.mark.slow
@pytest.mark.oracle
def test_mlx_lm_computes_what_the_gguf_says(
    folder: Path, sample_model: Any, sample_text: Text, require: runtimes.Require
) -> None:
    need(require, "mlx_lm")
    logits = runtimes.mlx_logits(folder, sample_text.ids)
    assert sample_text.agrees(logits)
    with scaled_like_mlx(sample_model):
        same = Text(sample_text.ids, runtimes.logits(sample_model, sample_text.ids))
    assert same.distance(logits) < 2e-5


@pytest.mark.oracle
def test_every_matrix_has_the_weights_of_the_gguf(folder: Path, sample_model: Any, require: runtimes.Require) -> None:
    need(require, "mlx")
    import mlx.core as mx

    arrays = {
        k: v.astype(mx.float32) if v.dtype == mx.bfloat16 else v
        for k, v in mx.load(str(folder / "model.safetensors")).items()
    }
    for name, parameter in sample_model.named_parameters():
        if parameter.ndim == 1:
            np.testing.assert_array_equal(np.array(arrays.pop(name)), parameter.detach().numpy())
            continue
        words, scales, biases = (arrays.pop(name.removesuffix("weight") + s) for s in ("weight", "scales", "biases"))
        bits = 8 if "embed_tokens" in name else 4
        weights = mx.dequantize(words[:4096], scales[:4096], biases[:4096], 32, bits)
        np.testing.assert_array_equal(np.array(weights), parameter[:4096].detach().numpy(), err_msg=name)
    assert not arrays


def test_the_folder_has_what_mlx_lm_looks_for(folder: Path, sample_bf16: Path) -> None:
    assert set(contained(folder)) == FILES | TOKENIZER
    config = json.loads((folder / "config.json").read_text())
    source = json.loads((sample_bf16 / "config.json").read_text())
    usual = {"group_size": 32, "bits": 4, "mode": "affine"}
    quantization = {**usual, "model.embed_tokens": {**usual, "bits": 8}}
    assert config.pop("quantization") == config.pop("quantization_config") == quantization
    assert config == source
    rope = {name: value for name, value in config.items() if "rope" in name}
    assert rope == {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": None}
    assert "vision_config" not in config and config["model_type"] == "gemma3_text"
    assert config["tie_word_embeddings"] is True


def test_the_index_names_every_array(folder: Path) -> None:
    names = header(folder / "model.safetensors")
    assert names.pop("__metadata__") == {"format": "mlx"}
    assert not any("lm_head" in name or "vision" in name for name in names)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == dict.fromkeys(names, "model.safetensors")
    assert index["metadata"]["total_parameters"] == 268_098_176
    assert index["metadata"]["total_size"] == max(entry["data_offsets"][1] for entry in names.values())


def test_tokenizer_files_are_taken_over_verbatim(tiny: Path, gemmaq, tmp_path: Path) -> None:
    gemmaq("convert", tiny, "--to", "mlx", "-o", tmp_path / "out")
    present = sorted(TOKENIZER & {path.name for path in tiny.iterdir()})
    assert len(present) > 2
    assert filecmp.cmpfiles(tiny, tmp_path / "out", present, shallow=False) == (present, [], [])
