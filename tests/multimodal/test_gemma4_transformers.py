"""Folders of Gemma 4 with towers for transformers: floats equal to the source, int4 with towers as they were."""

from __future__ import annotations

import filecmp
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import dequantized
import gemma4_inputs
import gemma4_transformers
import runtimes
from conversions import conversions
from gemma4_inputs import Inputs
from gemma4_towers import HEARING, KINDS
from gemma4_transformers import logits
from inprocess import run
from runtimes import Require, need

pytestmark = pytest.mark.filterwarnings("ignore:You passed `quantization_config`")

TOWERS = ("vision_tower", "audio_tower", "vision_embedder", "embed_vision", "embed_audio")
Convert = Callable[..., Path]


@pytest.fixture(scope="module")
def converted(gemma4_releases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """The folder of a kind for some options."""
    return conversions(gemma4_releases, tmp_path_factory.mktemp("made"), "--to", "safetensors")


def settings(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return result


def prompts(kind: str, folder: Path) -> list[Inputs]:
    """A prompt with an image, and one with a sound for a kind that hears."""
    return [gemma4_inputs.seen(kind), *([gemma4_inputs.heard(kind, folder)] if kind in HEARING else [])]


def differing(ours: Any, theirs: Any) -> list[str]:
    """Names of tensors that two models do not have in common, bit for bit."""
    a, b = ours.state_dict(), theirs.state_dict()
    return [name for name in a.keys() | b.keys() if name not in a or name not in b or not a[name].equal(b[name])]


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_the_source(gemma4_releases: dict[str, Path], converted: Convert, require: Require, kind: str) -> None:
    need(require, "torch", "transformers")
    source, folder = gemma4_releases[kind], converted(kind, "--quant", "bf16")
    kept = ["processor_config.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
    assert filecmp.cmpfiles(source, folder, kept, shallow=False) == (kept, [], [])
    ours, theirs = gemma4_transformers.load(folder), gemma4_transformers.load(source)
    assert differing(ours, theirs) == []
    for given in prompts(kind, source):
        expected = logits(theirs, given)
        np.testing.assert_array_equal(logits(ours, given), expected)
    other = logits(theirs, gemma4_inputs.seen(kind, seed=1))
    assert np.abs(other[-1] - logits(theirs, gemma4_inputs.seen(kind))[-1]).max() > 0.05 * np.ptp(other)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "experts"])
def test_int4_sees_and_hears_as_its_codes_say(
    gemma4_releases: dict[str, Path], converted: Convert, tmp_path: Path, require: Require, kind: str
) -> None:
    """To the bit, against the source's model with the codes multiplied by their scales."""
    need(require, "compressed_tensors", "torch", "transformers")
    source, folder = gemma4_releases[kind], converted(kind, "--quant", "q4_0")
    dense = gemma4_transformers.load(dequantized.of_compressed_tensors(folder, source, tmp_path / "dense"))
    moved = differing(dense, gemma4_transformers.load(source))
    quantized = [name for name in tensors(folder) if name.endswith(".weight_packed")]
    assert len(moved) == len(quantized) and not [name for name in moved if ".language_model.layers." not in name]
    model = gemma4_transformers.load(folder)
    for given in prompts(kind, source):
        np.testing.assert_array_equal(logits(model, given), logits(dense, given))


def tensors(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of every array."""
    import torch

    return {
        name: (str(array.dtype), array.view(-1).view(torch.uint8).numpy().tobytes())
        for name, array in load_file(folder / "model.safetensors").items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_tower_is_quantized(gemma4_releases: dict[str, Path], converted: Convert, kind: str) -> None:
    source, folder = tensors(gemma4_releases[kind]), tensors(converted(kind, "--quant", "q4_0"))
    inside = [name for name in source if ".language_model." not in name]
    assert {name: folder[name] for name in folder if ".language_model." not in name} == {n: source[n] for n in inside}
    assert {source[name][0] for name in inside} == {"torch.bfloat16"} and len(inside) > 8


def ignores(config: dict[str, Any], module: str) -> bool:
    """Whether compressed-tensors leaves a module alone."""
    patterns = config["quantization_config"]["ignore"]
    return any(re.match(p.removeprefix("re:"), module) if p.startswith("re:") else p == module for p in patterns)


@pytest.mark.parametrize("before", ["model.language_model", "language_model.model", "language_model"])
def test_every_program_finds_what_is_quantized_under_its_own_name(converted: Convert, before: str) -> None:
    """transformers and vLLM call the text model by other names than the folder does."""
    config = settings(converted("experts", "--quant", "q4_0"))
    quantized = ["self_attn.q_proj", "mlp.down_proj", "experts.15.gate_proj"]
    assert not [part for part in quantized if ignores(config, f"{before}.layers.5.{part}")]
    assert ignores(config, f"{before}.layers.5.router.proj") and ignores(config, "language_model.lm_head")
    for before_tower in ("model.", ""):
        for module in ("vision_tower.encoder.layers.0.mlp.down_proj.linear", "embed_vision.embedding_projection"):
            assert ignores(config, before_tower + module)


def test_types_of_two_widths_name_their_experts(converted: Convert, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('quant = "q4_0"\n[[rules]]\nmatch = "*.layers.5.experts.down_proj"\ntype = "q8_0"\n')
    groups = settings(converted("experts", "--recipe", str(recipe)))["quantization_config"]["config_groups"]
    four, eight = ([re.compile(p.removeprefix("re:")) for p in groups[f"group_{at}"]["targets"]] for at in (0, 1))
    assert groups["group_1"]["weights"]["num_bits"] == 8 and len(eight) == 16
    for part, wide in (("experts.3.down_proj", True), ("experts.3.up_proj", False), ("mlp.down_proj", False)):
        module = f"model.language_model.layers.5.{part}"
        assert [any(p.match(module) for p in patterns) for patterns in (four, eight)] == [not wide, wide], part


@pytest.mark.parametrize("kind", KINDS)
def test_config_says_what_the_release_says(gemma4_releases: dict[str, Path], converted: Convert, kind: str) -> None:
    ours, theirs = settings(converted(kind, "--quant", "bf16")), settings(gemma4_releases[kind])
    for side in ("text_config", "vision_config", "audio_config"):
        a, b = ours.pop(side), theirs.pop(side)
        if b is None:
            assert a is None
        else:
            changed = {key for key in a.keys() | b.keys() if a.get(key, "missing") != b.get(key, "missing")}
            assert changed <= {"dtype", "eos_token_id"}, side
    assert {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)} <= {
        "dtype", "torch_dtype", "vocab_size",
    }  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["effective", "unified"])
def test_text_only_on_request(gemma4_releases: dict[str, Path], tmp_path: Path, require: Require, kind: str) -> None:
    need(require, "torch", "transformers")
    options = ("--to", "safetensors", "--quant", "bf16", "--mmproj", "none")
    run("convert", gemma4_releases[kind], *options, "-o", tmp_path / "out")
    config = settings(tmp_path / "out")
    assert (config["model_type"], config["architectures"]) == ("gemma4_text", ["Gemma4ForCausalLM"])
    assert not [key for key in config if key.startswith(("vision", "audio", "image")) or key.endswith("_config")]
    assert not list((tmp_path / "out").glob("*processor*"))
    assert not [name for name in tensors(tmp_path / "out") if any(tower in name for tower in TOWERS)]
    ids = [2, *gemma4_inputs.AFTER]
    whole = gemma4_transformers.load(gemma4_releases[kind])
    expected = logits(whole, {"input_ids": np.array([ids])})
    np.testing.assert_array_equal(runtimes.logits(runtimes.whole(tmp_path / "out"), ids), expected)
