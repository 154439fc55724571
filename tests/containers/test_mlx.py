"""MLX folders: mlx-lm computes what a GGUF file says, and affine types are those of mx.quantize."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import runtimes
from damage import contained
from gemmaq.encodings import ENCODINGS, codec
from runtimes import Text, need
from synthetic import bf16

AFFINE = {"affine4": (4, 32), "affine4-g64": (4, 64), "affine8": (8, 32), "affine8-g64": (8, 64)}
"""Type -> bits and group size."""

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


def mlx_quantized(folder: Path, bits: int, group: int) -> dict[str, Any]:
    """A BF16 folder quantized by mlx: name -> array."""
    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    model, _ = load_model(folder)

    def fits(_: str, module: Any) -> bool:
        return hasattr(module, "to_quantized") and module.weight.shape[-1] % group == 0

    nn.quantize(model, group, bits, class_predicate=fits)
    return dict(tree_flatten(model.parameters()))


def bits_of(array: Any) -> np.ndarray:
    """An MLX array's bits."""
    import mlx.core as mx

    return np.array(array.view(mx.uint16) if array.dtype in (mx.bfloat16, mx.float16) else array)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", AFFINE)
def test_an_affine_folder_is_what_mlx_makes_of_the_model(
    kind: str, tiny: Path, gemmaq, tmp_path: Path, require: runtimes.Require
) -> None:
    need(require, "mlx_lm")
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model

    bits, group = AFFINE[kind]
    gemmaq("convert", tiny, "--to", "mlx", "--quant", kind, "-o", tmp_path / "out")
    theirs = mlx_quantized(tiny, bits, group)
    model, config = load_model(tmp_path / "out")
    ours = dict(tree_flatten(model.parameters()))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(bits_of(ours[name]), bits_of(array), err_msg=name)
    wide = {f"model.layers.{layer}.mlp.down_proj": False for layer in range(7)} if group == 64 else {}
    assert config["quantization"] == {"group_size": group, "bits": bits, "mode": "affine", **wide}
    assert np.isfinite(np.array(model(mx.array([[2, 5, 7]])).astype(mx.float32))).all()


@pytest.mark.oracle
@pytest.mark.parametrize("kind", AFFINE)
def test_codes_of_real_weights_are_those_of_mlx(kind: str, sample_bf16: Path, require: runtimes.Require) -> None:
    need(require, "mlx")
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    weights = mx.load(str(sample_bf16 / "model.safetensors"))
    for name in ("embed_tokens", "layers.0.self_attn.k_proj", "layers.5.mlp.down_proj", "layers.17.self_attn.o_proj"):
        x = weights[f"model.{name}.weight"][:640]
        same_as_mlx(kind, np.array(x.astype(mx.float32)), mx.bfloat16)


def same_as_mlx(kind: str, x: np.ndarray, dtype: Any) -> None:
    """Codes, scales and biases of some rows are those of mx.quantize, whose scales have the dtype of its input."""
    import mlx.core as mx

    bits, group = AFFINE[kind]
    ours = codec(ENCODINGS[kind]).nearest(x)
    words, scales, biases = mx.quantize(mx.array(x).astype(dtype), group, bits)
    raw = np.array(words).view(np.uint8)
    codes = raw if bits == 8 else np.stack([raw & 15, raw >> 4], -1).reshape(x.shape)
    np.testing.assert_array_equal(ours.codes, codes)
    for mine, theirs in ((ours.scales, scales), (ours.minima, biases)):
        np.testing.assert_array_equal(bits_of(mx.array(mine).astype(dtype)), bits_of(theirs))


GROUPS = arrays(np.float32, (2, 64), elements=st.floats(-1e4, 1e4, width=32), fill=st.floats(-1, 1, width=32))


@pytest.mark.oracle
@pytest.mark.parametrize("kind", AFFINE)
@settings(deadline=None, max_examples=150)
@given(x=GROUPS, coarse=st.booleans())
def test_codes_of_any_weights_are_those_of_mlx(
    kind: str, x: np.ndarray, coarse: bool, require: runtimes.Require
) -> None:
    need(require, "mlx")
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    if coarse:
        x = (bf16(x).astype(np.uint32) << 16).view(np.float32)
    same_as_mlx(kind, x, mx.float32)
