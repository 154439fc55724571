"""MLX's own types: codes are those of mx.quantize, mlx-lm runs every form, and gemmaq reads them back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import runtimes
from damage import small_model
from gemmaq.containers.mlx import FORMAT
from gemmaq.encodings import ENCODINGS, codec
from gemmaq.encodings.bitstream import pack_codes
from inprocess import refused, run
from runtimes import need
from synthetic import EVEN, bf16

AFFINE = {
    f"affine{bits}{'' if group == 32 else f'-g{group}'}": (bits, group)
    for bits in (2, 3, 4, 5, 6, 8)
    for group in (32, 64, 128)
}
"""Type -> bits and group size."""


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("even") / "gemma-3-even", EVEN)


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


def same_as(theirs: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A folder has just the arrays that mlx has; returns its config."""
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model

    model, config = load_model(folder)
    ours = dict(tree_flatten(model.parameters()))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(bits_of(ours[name]), bits_of(array), err_msg=name)
    return dict(config)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["affine4", "affine3-g64"])
def test_rows_that_no_group_divides_stay_as_mlx_leaves_them(
    kind: str, tiny: Path, tmp_path: Path, require: runtimes.Require
) -> None:
    need(require, "mlx_lm")
    bits, group = AFFINE[kind]
    run("convert", tiny, "--to", "mlx", "--quant", kind, "-o", tmp_path / "out")
    config = same_as(mlx_quantized(tiny, bits, group), tmp_path / "out")
    wide = {f"model.layers.{layer}.mlp.down_proj": False for layer in range(7)} if group == 64 else {}
    assert config["quantization"] == {"group_size": group, "bits": bits, "mode": "affine", **wide}


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("kind", AFFINE)
def test_mlx_lm_has_the_same_folder_and_runs_it(
    kind: str, even: Path, tmp_path: Path, require: runtimes.Require
) -> None:
    need(require, "mlx_lm")
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    bits, group = AFFINE[kind]
    run("convert", even, "--to", "mlx", "--quant", kind, "-o", tmp_path / "out")
    config = same_as(mlx_quantized(even, bits, group), tmp_path / "out")
    assert config["quantization"] == {"group_size": group, "bits": bits, "mode": "affine"}
    model = runtimes.mlx_model(tmp_path / "out")
    chosen = [int(token) for token, _ in generate_step(mx.array([2, 5, 7]), model, max_tokens=4)]
    run("convert", tmp_path / "out", "--to", "safetensors", "--quant", "f32", "-o", tmp_path / "dense")
    ids = [2, 5, 7, *chosen]
    ours, dense = np.array(model(mx.array([ids])))[0], runtimes.mlx_logits(tmp_path / "dense", ids)
    np.testing.assert_allclose(ours, dense, rtol=0, atol=1e-4 * np.abs(dense).max())
    assert dense.argmax(axis=1)[2:-1].tolist() == chosen


@pytest.mark.parametrize("kind", ["affine2", "affine3-g128", "affine5-g64", "affine6"])
def test_its_codes_are_kept(kind: str, even: Path, tmp_path: Path) -> None:
    """From MLX to MLX nothing changes; sizes are known before."""
    run("convert", even, "--to", "mlx", "--quant", kind, "-o", tmp_path / "out")
    bits, group = AFFINE[kind]
    (dry,) = json.loads(run("convert", even, "--to", "mlx", "--quant", kind, "--dry-run", "--json").stdout)["artifacts"]
    sizes = {file["path"]: file["bytes"] for file in dry["files"]}
    assert (tmp_path / "out/model.safetensors").stat().st_size == sizes["model.safetensors"]
    assert abs(dry["bits_per_weight"] - (bits + 32 / group)) < 0.2
    shown = json.loads(run("inspect", tmp_path / "out", "--json").stdout)
    assert set(shown["types"]) == {kind, "bf16"}
    estimated = run("estimate-vram", even, "--engine", "mlx", "--quant", kind, "--context", "512", "--json").stdout
    weights = sum(entry["bytes"] for entry in shown["types"].values())
    assert json.loads(estimated)["estimates"][0]["bytes"]["weights"] == weights
    run("convert", tmp_path / "out", "--to", "mlx", "--quant", "auto", "-o", tmp_path / "again")
    for name in "model.safetensors", "config.json":
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    run("verify", tmp_path / "out", "--against", even, "-q")


def converted(source: Path, out: Path, mixture: str, group: int | None) -> Path:
    """The folder that mlx_lm.convert makes."""
    from mlx_lm.convert import convert

    convert(str(source), str(out), quantize=True, q_group_size=group, quant_predicate=mixture)
    return out


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(
    ("mixture", "group"), [("mixed_2_6", 32), ("mixed_3_4", 128), ("mixed_3_6", None), ("mixed_4_6", 64)]
)
def test_a_mixture_is_that_of_mlx_lm(
    mixture: str, group: int | None, even: Path, tmp_path: Path, require: runtimes.Require
) -> None:
    """Its own folder is read, with no group size in the overrides, and comes out again as ours from BF16 does."""
    need(require, "mlx_lm")
    theirs = converted(even, tmp_path / "theirs", mixture, group)
    shutil.copy(even / "tokenizer.model", theirs)  # these made-up pieces have no merges, with which it is left out
    name = mixture + (f"-g{group}" if group in (32, 128) else "")
    run("convert", even, "--to", "mlx", "--quant", name, "-o", tmp_path / "ours")
    arrays, other = (runtimes.arrays(path / "model.safetensors") for path in (tmp_path / "ours", theirs))
    assert arrays.keys() == other.keys()
    assert [key for key, array in arrays.items() if array != other[key]] == []
    low, high = (f"affine{bits}" + ("" if group == 32 else f"-g{group or 64}") for bits in mixture.split("_")[1:])
    assert set(json.loads(run("inspect", theirs, "--json").stdout)["types"]) == {low, high, "bf16"}
    run("convert", theirs, "--to", "mlx", "--quant", "auto", "-o", tmp_path / "again")
    assert runtimes.arrays(tmp_path / "again/model.safetensors") == arrays
    for folder in tmp_path / "ours", tmp_path / "again":
        quantization = json.loads((folder / "config.json").read_text())["quantization"]
        assert (quantization["group_size"], quantization["bits"]) == (group or 64, int(mixture[6]))
        wide = {key for key, value in quantization.items() if isinstance(value, dict)}
        assert wide == {
            f"model.layers.{layer}.{part}"
            for layer in (0, 3, 6, 7, 8)
            for part in ("self_attn.v_proj", "mlp.down_proj")
        }
        assert {quantization[key]["bits"] for key in wide} == {int(mixture[8])}
        runtimes.mlx_logits(folder, [2, 5, 7])


def test_every_module_may_have_a_type_of_its_own(even: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "rules.toml"
    recipe.write_text(
        'quant = "affine3-g64"\nembedding = "affine6"\n'
        '[[rules]]\nmatch = "*.layers.1.*"\ntype = "affine5-g128"\n[[rules]]\nmatch = "*.o_proj.*"\ntype = "bf16"\n'
    )
    run("convert", even, "--to", "mlx", "--recipe", recipe, "-o", tmp_path / "out")
    quantization = json.loads((tmp_path / "out/config.json").read_text())["quantization"]
    usual = {"group_size": 64, "bits": 3, "mode": "affine"}
    assert {key: quantization.pop(key) for key in usual} == usual
    assert quantization.pop("model.embed_tokens") == {"group_size": 32, "bits": 6, "mode": "affine"}
    own = {key: value for key, value in quantization.items() if ".layers.1." in key}
    assert list(own.values()) == 7 * [{"group_size": 128, "bits": 5, "mode": "affine"}]
    others = {f"model.layers.{layer}.self_attn.o_proj" for layer in range(9)} - own.keys()
    assert quantization == own | dict.fromkeys(others, False)
    run("verify", tmp_path / "out", "--against", even, "-q")


@pytest.mark.parametrize(
    ("body", "embedding"),
    [("affine3", "affine3"), ("mxfp8", "mxfp8"), ("q4_0", "q8_0"), ("int4-g64", "q8_0"), ("bf16", "bf16")],
)
def test_the_embedding_has_the_type_of_the_layers_where_that_is_of_mlx(body: str, embedding: str) -> None:
    assert FORMAT.default_embedding(ENCODINGS[body]) == embedding


def test_mixtures_of_mlx_are_for_mlx(even: Path, tmp_path: Path) -> None:
    for to in "gguf", "safetensors":
        arguments = ("convert", even, "--to", to, "--quant", "mixed_3_6", "-o", tmp_path / "out")
        refused(3, (f"{to} cannot hold MIXED_3_6",), *arguments, under=tmp_path)


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
    np.testing.assert_array_equal(pack_codes(bits, ours.codes), np.array(words).view(np.uint8))
    for mine, theirs in ((ours.scales, scales), (ours.minima, biases)):
        np.testing.assert_array_equal(bits_of(mx.array(mine).astype(dtype)), bits_of(theirs))


GROUPS = arrays(np.float32, (2, 128), elements=st.floats(-1e4, 1e4, width=32), fill=st.floats(-1, 1, width=32))


@pytest.mark.oracle
@pytest.mark.parametrize("kind", AFFINE)
@settings(deadline=None, max_examples=60)
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
