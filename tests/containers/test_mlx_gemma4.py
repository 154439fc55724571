"""MLX folders of Gemma 4: mlx-lm and mlx-vlm load the same file and compute what transformers computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
import runtimes
from conversions import conversions
from gemmaq.sources.open import open_source
from inprocess import run
from oracles import read_gguf
from runtimes import Require, need

IDS = [2, *np.random.default_rng(3).integers(280, 360, 40).tolist()]
Convert = Callable[..., Path]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return gemma4.folders(tmp_path_factory.mktemp("gemma4"))


@pytest.fixture(scope="module")
def converted(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """The MLX folder of a kind for some options."""
    return conversions(sources, tmp_path_factory.mktemp("made"), "--to", "mlx")


def settings(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return result


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(
    ("kind", "quant"),
    [*((kind, "q4_0") for kind in gemma4.KINDS), ("effective", "affine4"), ("experts", "affine4")],
)
def test_both_programs_compute_what_transformers_does(
    converted: Convert, tmp_path: Path, require: Require, kind: str, quant: str
) -> None:
    """The two are equal to the bit; transformers has the same weights, in f32 and without MLX's rounded constants."""
    need(require, "mlx_lm", "mlx_vlm", "torch", "transformers")
    import mlx.core as mx
    from mlx_lm.utils import load_model
    from mlx_vlm.utils import load_model as load_for_vision

    mx.set_default_device(mx.cpu)
    folder = converted(kind, "--quant", quant)
    tokens = mx.array([IDS])
    first = np.array(load_model(folder)[0](tokens).astype(mx.float32))
    second = np.array(load_for_vision(folder)(tokens).logits.astype(mx.float32))
    np.testing.assert_array_equal(first, second)
    run("convert", folder, "--to", "safetensors", "--quant", "f32", "-o", tmp_path / "dense")
    expected = runtimes.logits(runtimes.whole(tmp_path / "dense"), IDS)
    found = runtimes.mlx_logits(folder, IDS)
    assert np.abs(found[0] - expected[0]).max() < 0.01 * np.ptp(expected)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= (0.8 if kind == "experts" else 0.9)


def test_settings_name_what_differs_from_the_body(converted: Convert) -> None:
    usual = {"group_size": 32, "bits": 4, "mode": "affine"}
    eight = {**usual, "bits": 8}
    experts = settings(converted("experts", "--quant", "q4_0"))
    routers = {f"language_model.model.layers.{at}.router.proj": {**eight, "group_size": 64} for at in range(6)}
    assert experts["quantization"] == {**usual, "language_model.model.embed_tokens": eight, **routers}
    effective = settings(converted("effective", "--quant", "q4_0"))
    tables = {f"language_model.model.{name}": eight for name in ("embed_tokens", "embed_tokens_per_layer")}
    assert effective["quantization"] == {**usual, **tables, "language_model.model.per_layer_model_projection": False}
    assert effective["quantization_config"] == effective["quantization"]
    told = settings(converted("effective", "--quant", "q4_0", "--ple-proj-type", "q8_0", "--ple-type", "q4_0"))
    projection = {"language_model.model.per_layer_model_projection": eight}
    assert told["quantization"] == {**usual, "language_model.model.embed_tokens": eight, **projection}


@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_every_key_is_written_where_the_programs_look(converted: Convert, kind: str) -> None:
    """Their defaults are those of other sizes."""
    config = settings(converted(kind, "--quant", "q4_0"))
    text, made = config["text_config"], gemma4.KINDS[kind]
    assert (config["model_type"], config["architectures"]) == ("gemma4", ["Gemma4ForConditionalGeneration"])
    assert config["vocab_size"] == text["vocab_size"] == text["vocab_size_per_layer_input"] == 512
    for key in (
        "global_head_dim", "num_global_key_value_heads", "num_kv_shared_layers", "use_double_wide_mlp",
        "hidden_size_per_layer_input", "attention_k_eq_v", "enable_moe_block", "num_experts", "top_k_experts",
        "moe_intermediate_size", "final_logit_softcapping",
    ):  # fmt: skip
        assert text[key] == getattr(made, key), key
    assert len(text["layer_types"]) == made.num_hidden_layers and "per_layer_config" not in text
    assert not {"vision_config", "audio_config"} & config.keys()


def test_experts_are_a_stack_for_each_projection(converted: Convert) -> None:
    from safetensors import safe_open

    with safe_open(converted("experts", "--quant", "q4_0") / "model.safetensors", "np") as file:
        names = set(file.keys())
        stem = "language_model.model.layers.4.experts.switch_glu"
        shapes = {
            name: (file.get_slice(f"{stem}.{name}").get_dtype(), file.get_slice(f"{stem}.{name}").get_shape())
            for name in ("gate_proj.weight", "up_proj.scales", "down_proj.biases")
        }
    assert shapes == {
        "gate_proj.weight": ("U32", [16, 96, 32]), "up_proj.scales": ("BF16", [16, 96, 8]),
        "down_proj.biases": ("BF16", [16, 256, 3]),
    }  # fmt: skip
    assert all(name.startswith("language_model.model.") for name in names)
    assert not any("gate_up_proj" in name for name in names)
    for name in ("router.scale", "router.per_expert_scale", "layer_scalar", "router.proj.scales"):
        assert f"language_model.model.layers.0.{name}" in names


def test_tokenizer_and_template_are_taken_along(converted: Convert, sources: dict[str, Path]) -> None:
    folder = converted("unified", "--quant", "q4_0")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (sources["unified"] / name).read_bytes()


@pytest.mark.parametrize("kind", ["effective", "experts"])
def test_codes_of_a_gguf_file_survive_the_way_to_mlx_and_back(
    sources: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    start = tmp_path / "gguf"
    run("convert", sources[kind], "--quant", "q4_0", "--embedding", "q4_0", "--ple-type", "q4_0", "--portable",
        "--ple-proj-type", "bf16", "-o", start)  # fmt: skip
    run("convert", next(start.glob("*.gguf")), "--to", "mlx", "-o", tmp_path / "mlx")
    run("convert", tmp_path / "mlx", "--ple-proj-type", "bf16", "-o", tmp_path / "back")
    before, after = (read_gguf(next((tmp_path / name).glob("*.gguf")))[1] for name in ("gguf", "back"))
    routers = {name for name in before if "ffn_gate_inp.weight" in name}  # F32 in one, 8 bit in the other
    assert list(before) == list(after) and len(routers) == (6 if kind == "experts" else 0)
    assert [name for name in before if before[name] != after[name] and name not in routers] == []


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(
    ("program", "kind"), [("mlx_lm", "effective"), ("mlx_lm", "experts"), ("mlx_vlm.convert", "unified")]
)
def test_folders_of_the_programs_own_converters_are_sources(
    sources: dict[str, Path], tmp_path: Path, require: Require, program: str, kind: str
) -> None:
    """4 bits, per-layer tables and projection too: what loads in transformers has MLX's weights."""
    need(require, program.partition(".")[0])
    import mlx.core as mx

    mx.set_default_device(mx.cpu)
    theirs = tmp_path / "theirs"
    group = 32 if kind == "experts" else 64  # these experts are 96 wide
    import_module(program).convert(str(sources[kind]), str(theirs), quantize=True, q_group_size=group, q_bits=4)
    model = open_source(str(theirs))
    assert model.format == "mlx" and model.body.name == ("affine4" if group == 32 else "affine4-g64")
    run("convert", theirs, "--to", "safetensors", "--quant", "f32", "-o", tmp_path / "dense")
    loaded = runtimes.whole(tmp_path / "dense")
    arrays = mx.load(str(theirs / "model.safetensors"))
    modules = {"embed_tokens": "embed_tokens", "layers.5.mlp.down_proj": "layers.5.mlp.down_proj"}
    if kind == "effective":
        modules["per_layer_model_projection"] = "per_layer_model_projection"
    if kind == "experts":
        modules["layers.3.experts.down_proj"] = "layers.3.experts.switch_glu.down_proj"
    for ours, stored in modules.items():
        stem = next(name for name in arrays if name.endswith(f"model.{stored}.weight")).removesuffix("weight")
        words, *rest = (arrays[stem + suffix] for suffix in ("weight", "scales", "biases"))
        expected = mx.dequantize(words, *(part.astype(mx.float32) for part in rest), group, 4)
        found = loaded.state_dict()[f"model.{ours}" + ("" if "experts" in ours else ".weight")]
        np.testing.assert_array_equal(found.numpy(), np.array(expected))
