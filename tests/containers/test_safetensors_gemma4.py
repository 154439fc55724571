"""Folders of Gemma 4 for transformers and vLLM: floats, and int4 as compressed-tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
import runtimes
from inprocess import run
from records import recorded
from runtimes import Require, need

pytestmark = pytest.mark.filterwarnings("ignore:You passed `quantization_config`")

IDS = [2, *np.random.default_rng(3).integers(280, 360, 40).tolist()]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return gemma4.folders(tmp_path_factory.mktemp("gemma4"))


def settings(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return result


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("kind", [kind for kind in gemma4.KINDS if kind != "experts"])
def test_transformers_computes_what_the_codes_say(
    sources: dict[str, Path], tmp_path: Path, require: Require, kind: str
) -> None:
    """To the bit, against a folder of the same weights in F32; the layer projection is quantized in one of them."""
    need(require, "compressed_tensors")
    projection = ("--ple-proj-type", "q8_0") if kind == "effective" else ()
    run("convert", sources[kind], "--to", "safetensors", *projection, "-o", tmp_path / "ct")
    run("convert", tmp_path / "ct", "--to", "safetensors", "--quant", "f32", "-o", tmp_path / "dense")
    assert settings(tmp_path / "ct")["architectures"] == ["Gemma4ForCausalLM"]
    found, expected = (runtimes.logits(runtimes.whole(tmp_path / name), IDS) for name in ("ct", "dense"))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.oracle
@pytest.mark.parametrize("quant", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("kind", ["effective", "experts"])
def test_floats_load_whole(sources: dict[str, Path], tmp_path: Path, require: Require, kind: str, quant: str) -> None:
    need(require, "torch", "transformers")
    import torch

    run("convert", sources[kind], "--to", "safetensors", "--quant", quant, "-o", tmp_path / "out")
    ours, theirs = (runtimes.whole(folder).state_dict() for folder in (tmp_path / "out", sources[kind]))
    worst = max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)
    assert ours.keys() == theirs.keys() and worst <= (2**-20 if quant == "f16" else 0)
    assert settings(tmp_path / "out")["torch_dtype"] == {"bf16": torch.bfloat16, "f16": torch.float16}.get(
        quant, torch.float32
    ).__repr__().removeprefix("torch.")


def test_experts_have_the_names_of_vllm_and_the_user_is_told(sources: dict[str, Path], tmp_path: Path) -> None:
    from safetensors import safe_open

    done = run("convert", sources["experts"], "--to", "safetensors", "-o", tmp_path / "out")
    told = "the experts are quantized one by one: vLLM reads them on a GPU, transformers does not read them"
    assert told in " ".join(done.stderr.split())
    card = (tmp_path / "out/README.md").read_text()
    assert f"**T{told[1:]}.**" in card and "library_name: vllm" in card and "quantized by gemmaq for vLLM" in card
    assert told in recorded(tmp_path / "out")["warnings"]
    with safe_open(tmp_path / "out/model.safetensors", "np") as file:
        names = set(file.keys())
        stem = "model.layers.1.experts.15.gate_proj"
        shapes = {
            suffix: file.get_slice(f"{stem}.{suffix}").get_shape() for suffix in ("weight_packed", "weight_scale")
        }
        assert file.get_tensor(f"{stem}.weight_shape").tolist() == [96, 256]
    assert shapes == {"weight_packed": [96, 32], "weight_scale": [96, 8]}
    assert sum(".experts." in name for name in names) == 6 * 16 * 3 * 3
    assert "model.layers.0.router.proj.weight" in names
    ignored = settings(tmp_path / "out")["quantization_config"]["ignore"]
    assert ignored == ["lm_head", *(f"model.layers.{at}.router.proj" for at in range(6))]


@pytest.mark.parametrize("options", [("--quant", "bf16"), ("--to", "gguf"), ("--to", "mlx")], ids=" ".join)
def test_no_other_folder_of_experts_has_the_remark(
    sources: dict[str, Path], tmp_path: Path, options: tuple[str, ...]
) -> None:
    where = () if "--to" in options else ("--to", "safetensors")
    done = run("convert", sources["experts"], *options, *where, "-o", tmp_path / "out")
    assert "one by one" not in done.stderr + (tmp_path / "out/README.md").read_text()


def test_config_counts_experts_only_where_there_are_some(sources: dict[str, Path], tmp_path: Path) -> None:
    """vLLM takes a model with `num_experts` for one with experts, be it 0."""
    run("convert", sources["dense"], "--to", "safetensors", "-o", tmp_path / "out")
    config = settings(tmp_path / "out")
    assert config["num_experts"] is None and config["hidden_size_per_layer_input"] == 0
    assert config["model_type"] == "gemma4_text" and config["quantization_config"]["ignore"] == ["lm_head"]


def test_the_layer_projection_is_ignored_unless_it_is_quantized(sources: dict[str, Path], tmp_path: Path) -> None:
    name = "model.per_layer_model_projection"
    for flags, expected in (((), ["lm_head", name]), (("--ple-proj-type", "q4_0"), ["lm_head"])):
        out = tmp_path / str(len(flags))
        run("convert", sources["effective"], "--to", "safetensors", *flags, "-o", out)
        assert settings(out)["quantization_config"]["ignore"] == expected


def test_values_are_ignored_with_the_keys_that_serve_as_values(sources: dict[str, Path], tmp_path: Path) -> None:
    """vLLM leaves the fused matrix of a layer alone only if all three names are listed."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('quant = "q4_0"\n[[rules]]\nmatch = "*.layers.5.self_attn.[qk]_proj.weight"\ntype = "bf16"\n')
    run("convert", sources["dense"], "--to", "safetensors", "--recipe", recipe, "-o", tmp_path / "out")
    ignored = settings(tmp_path / "out")["quantization_config"]["ignore"]
    assert ignored == ["lm_head", *(f"model.layers.5.self_attn.{name}_proj" for name in "qkv")]
