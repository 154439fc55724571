"""Keys of config.json: each is read, harmless, or refused where its value changes what the model computes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
import gemma4_tokenizer
from damage import SMALL, edit_gguf_keys, edit_json, small_model, text
from gemmaq.models.config_keys import GELU_TANH, HARMLESS, ConfigKeys
from gemmaq.models.families import FAMILIES
from gemmaq.models.gemma3.config import from_hf, to_hf
from gemmaq.models.gemma4 import gguf_keys as gemma4_keys
from inprocess import run
from oracles import load_llama, need, need_ggml

LINEAR = {"rope_type": "linear", "factor": 8.0}
GEMMA3: list[dict[str, Any]] = [
    {"hidden_activation": "silu"},
    {"hidden_activation": "gelu"},
    {"hidden_activation": "relu2"},
    {"attention_bias": True},
    {"attn_logit_softcapping": 50.0},
    {"partial_rotary_factor": 0.5},
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}},
    {"rope_scaling": {**LINEAR, "partial_rotary_factor": 0.5}},
    {"rope_parameters": {"full_attention": {"rope_type": "longrope"}, "sliding_attention": None}},
    {"rope_parameters": {"full_attention": {**LINEAR, "partial_rotary_factor": 0.25}}},
    {"per_layer_config": {"1": {"head_dim": 64}}},
    {"use_bidirectional_attention": True},
    {"sliding_window": None},
    {"layer_types": ["chunked_attention", "full_attention"]},
]
PROPORTIONAL = {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6}
LOCAL = {"rope_type": "default", "rope_theta": 1e4}
GEMMA4: list[dict[str, Any]] = [
    {"hidden_activation": "gelu"},
    {"attention_bias": True},
    {"rope_scaling": LINEAR},
    {"rope_theta": 5e5},
    {"partial_rotary_factor": 0.5},
    {"use_bidirectional_attention": "all"},
    {"rope_parameters": {"full_attention": {**PROPORTIONAL, "factor": 8.0}, "sliding_attention": LOCAL}},
    {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": LOCAL}},
    {"rope_parameters": {"full_attention": PROPORTIONAL, "sliding_attention": {**LOCAL, "partial_rotary_factor": 0.5}}},
    {"per_layer_config": {"5": {"intermediate_size": 64}}},
]


def refused(folder: Path, change: dict[str, Any], out: Path, where: str | None = None) -> None:
    """Every command refuses the folder by the key, and nothing is written."""
    edit_json(folder / "config.json", lambda document: (document if where is None else document[where]).update(change))
    ((name, value),) = change.items()
    for command in (("convert", folder, "--to", "safetensors", "--quant", "bf16", "-o", out), ("inspect", folder)):
        said = run(*command, code=3).stderr
        assert any(word in said for word in (name, "rope", "bidirectional")), said
        shown = "null" if value is None else f"{value!r:.20}"
        assert shown in said or isinstance(value, (dict, list)) or "bidirectional" in said, said
    assert not out.exists()


@pytest.mark.parametrize("change", GEMMA3, ids=str)
def test_what_changes_the_computation_of_gemma3_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    refused(small_model(tmp_path / "model"), change, tmp_path / "out")


@pytest.mark.parametrize("change", GEMMA4, ids=str)
def test_what_changes_the_computation_of_gemma4_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    folder = gemma4_tokenizer.write(gemma4.write(tmp_path / "gemma-4-dense", gemma4.DENSE))
    refused(folder, change, tmp_path / "out")


@pytest.mark.parametrize("usual", [{name: name_} for name in ("hidden_activation",) for name_ in GELU_TANH])
def test_other_names_of_the_same_function_are_read(usual: dict[str, str]) -> None:
    assert from_hf({**to_hf(SMALL, "bfloat16"), **usual}) == SMALL


@pytest.mark.oracle
def test_the_names_are_one_function_in_transformers(require) -> None:
    need(require, "torch", "transformers")
    import torch
    from transformers.activations import ACT2FN

    x = torch.linspace(-6, 6, 4001)
    for name in GELU_TANH:
        assert (ACT2FN[name](x) - ACT2FN["gelu_pytorch_tanh"](x)).abs().max() < 2e-6, name
    assert (ACT2FN["gelu"](x) - ACT2FN["gelu_pytorch_tanh"](x)).abs().max() > 1e-4


def tables() -> Iterator[tuple[str, ConfigKeys]]:
    classes = {
        "gemma3": ("gemma3", "Gemma3TextConfig"),
        "gemma4": ("gemma4", "Gemma4TextConfig"),
        "unified": ("gemma4_unified", "Gemma4UnifiedTextConfig"),
        "gemma3n": ("gemma3n", "Gemma3nTextConfig"),
    }
    for family in FAMILIES:
        if family.name in classes:
            yield ".".join(classes[family.name]), family.configs.KEYS
        if family.name == "gemma4":
            yield ".".join(classes["unified"]), family.configs.KEYS


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "keys"), [*tables()], ids=[name for name, _ in tables()])
def test_no_key_of_transformers_is_undecided(name: str, keys: ConfigKeys, require) -> None:
    need(require, "transformers")
    from importlib import import_module

    module, _, kind = name.partition(".")
    config = getattr(import_module(f"transformers.models.{module}.configuration_{module}"), kind)
    known = keys.read | keys.harmless | HARMLESS | keys.fixed.keys()
    assert {field.name for field in fields(config)} <= known
    assert set(config().to_dict()) <= known  # what it saves


def test_keys_that_nobody_reads_are_named(tmp_path: Path) -> None:
    folder = small_model(tmp_path / "model")
    code = {"AutoModelForCausalLM": "modeling.Mine"}
    edit_json(folder / "config.json", lambda d: d.update(logit_scale=0.5, mystery=[1], nothing=None, auto_map=code))
    notes = json.loads(run("inspect", folder, "--json").stdout)["notes"]
    assert "config.json: not read, as in transformers: logit_scale (0.5), mystery ([1])" in notes
    assert any("auto_map" in note for note in notes)


def test_a_config_that_says_nothing_unusual_leads_to_no_note(tmp_path: Path) -> None:
    folder = small_model(tmp_path / "model")
    usual = {"_name_or_path": "x", "transformers_version": "5", "unsloth_fixed": True, "top_k": 3, "dtype": "bfloat16"}
    edit_json(folder / "config.json", lambda d: d.update(usual))
    assert not json.loads(run("inspect", folder, "--json").stdout)["notes"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer_pattern": (True, False, False, True, True, True, False)}, "layer_types has no period"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30"),
    ],
)
def test_what_mlx_cannot_say_is_refused_there_alone(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    layers = len(change.get("layer_pattern", (1, 2)))
    folder = small_model(tmp_path / "model", replace(SMALL, num_hidden_layers=layers, **change))
    assert said in run("convert", folder, "--to", "mlx", "--quant", "bf16", "-o", tmp_path / "mlx", code=3).stderr
    assert not (tmp_path / "mlx").exists()
    run("convert", folder, "--to", "gguf", "--to", "safetensors", "--quant", "bf16", "-o", tmp_path / "others")


def test_a_scale_of_queries_that_llama_cpp_does_not_have_is_refused_in_gguf_alone(tmp_path: Path) -> None:
    folder = small_model(tmp_path / "model", replace(SMALL, query_pre_attn_scalar=168))
    assert "query_pre_attn_scalar is 168" in run("convert", folder, "-o", tmp_path / "gguf", code=3).stderr
    run("convert", folder, "--to", "mlx", "--to", "safetensors", "--quant", "bf16", "-o", tmp_path / "others")


@pytest.mark.parametrize(
    ("name", "value"),
    [("rope.scaling.type", (8, text("yarn"))), ("rope.scaling.type", (8, text("longrope")))],
)
def test_a_gguf_that_scales_positions_otherwise_is_refused(name: str, value: tuple[int, bytes], tmp_path: Path) -> None:
    run("convert", small_model(tmp_path / "model"), "--quant", "bf16", "-o", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("*.gguf")
    edit_gguf_keys(path, lambda keys: keys.update({f"gemma3.{name}": value}))
    assert f"gemma3.{name}" in run("inspect", path, code=3).stderr


def test_logits_without_a_cap_are_said_in_gguf() -> None:
    """llama.cpp caps those of Gemma 4 at 30 where no key says otherwise."""
    uncapped = replace(gemma4.DENSE, final_logit_softcapping=None)
    said = gemma4_keys.from_config(uncapped)
    assert said["final_logit_softcapping"] == 0
    keys = {f"gemma4.{name}": value for name, value in said.items()}
    shapes = {"token_embd.weight": (512, 128)}
    assert gemma4_keys.to_config(keys, shapes).final_logit_softcapping is None
    del keys["gemma4.final_logit_softcapping"]
    assert gemma4_keys.to_config(keys, shapes).final_logit_softcapping == 30


@pytest.mark.oracle
def test_llama_cpp_does_not_cap_such_logits(require, tmp_path: Path) -> None:
    """The head is enlarged so that a cap of 30 would show."""
    need_ggml(require)
    uncapped = replace(gemma4.DENSE, final_logit_softcapping=None)
    tensors = dict(gemma4.weights(uncapped))
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 40
    peaks = {}
    for name, config in (("without", uncapped), ("with", replace(uncapped, final_logit_softcapping=30.0))):
        folder = gemma4_tokenizer.write(gemma4.write(tmp_path / name, config, tensors))
        run("convert", folder, "--quant", "bf16", "-o", tmp_path / f"{name}-gguf")
        with load_llama(next((tmp_path / f"{name}-gguf").glob("*.gguf"))) as llama:
            (logits,) = (np.abs(part).max() for part in llama.logits(list(range(100, 164))))
        peaks[name] = float(logits)
    assert peaks["with"] <= 30 < 35 < peaks["without"]


@pytest.mark.parametrize("change", [{"hidden_act": "silu"}, {"num_channels": 1}])
def test_a_vision_tower_of_another_kind_cannot_be_read(change: dict[str, Any]) -> None:
    from gemmaq.errors import InputError
    from gemmaq.models.gemma3 import towers

    document = {"vision_config": towers.to_hf_config(towers.DEFAULT), **towers.token_keys(towers.DEFAULT)}
    assert towers.from_hf(document, {}) == towers.DEFAULT
    document["vision_config"].update(change)
    with pytest.raises(InputError, match=next(iter(change))):
        towers.from_hf(document, {})


def test_every_family_has_a_table() -> None:
    for family in FAMILIES:
        assert family.configs.KEYS.fixed["hidden_activation"] == GELU_TANH
