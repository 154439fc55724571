"""Adapters merged into a model: as PEFT's `merge_and_unload` does it in float32, bit by bit."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lora_files
import peft_adapters
from gemmaq.checkpoint.lora.model import as_stored
from gemmaq.errors import GemmaqError, InputError
from gemmaq.sources.companions import Wish
from gemmaq.sources.open import open_source
from peft_adapters import ATTENTION, LINEAR
from synthetic import bf16

GROWN = 328
CASES: dict[str, tuple[dict[str, Any], int | None]] = {
    "every matrix": ({"target_modules": LINEAR}, None),
    "rank-stabilized": ({"target_modules": LINEAR, "r": 6, "use_rslora": True}, None),
    "rank of one block and a half": ({"target_modules": ATTENTION, "r": 200}, None),
    "rank of three blocks": ({"target_modules": ATTENTION, "r": 400}, None),
    "DoRA": ({"target_modules": LINEAR, "use_dora": True}, None),
    "DoRA of the embedding": ({"target_modules": ["q_proj", "embed_tokens"], "use_dora": True}, None),
    "embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, None),
    "head that is the embedding": ({"target_modules": ["q_proj", "lm_head"]}, None),
    "embedding and head that is the embedding": ({"target_modules": ["lm_head", "embed_tokens"]}, None),
    "embedding stored whole": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, None),
    "embedding stored whole and tied": (
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        None,
    ),
    "head stored whole": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, None),
    "both stored whole": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}, None),
    "norms stored whole": ({"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm", "norm"]}, None),
    "part of a layer stored whole": ({"target_modules": ["q_proj"], "modules_to_save": ["layers.2.mlp"]}, None),
    "patterns": (
        {
            "target_modules": LINEAR,
            "rank_pattern": {"q_proj": 4, r"layers\.[01]\.mlp\.up_proj": 12},
            "alpha_pattern": {"model.layers.3.self_attn.k_proj": 5, "down_proj": 64},
        },
        None,
    ),
    "all linear layers": ({"target_modules": "all-linear"}, None),
    "a regular expression": ({"target_modules": r".*\.(q|v)_proj"}, None),
    "but for some": ({"target_modules": ATTENTION, "exclude_modules": r".*layers\.0\..*"}, None),
    "some layers": (
        {"target_modules": ATTENTION, "layers_to_transform": [1, 3], "layers_pattern": "layers"},
        None,
    ),
    "biases, of which there are none": ({"target_modules": ATTENTION, "bias": "all"}, None),
    "fan_in_fan_out, which is not for these layers": ({"target_modules": ATTENTION, "fan_in_fan_out": True}, None),
    "a parameter": ({"target_modules": ["q_proj"], "target_parameters": ["mlp.up_proj.weight"]}, None),
    "some tokens": ({"target_modules": ["q_proj"], "trainable_token_indices": [3, 300]}, None),
    "more tokens": ({"target_modules": ["q_proj"]}, GROWN),
    "more tokens, all trained": (
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        GROWN,
    ),
    "more tokens and the embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, GROWN),
    "more tokens, some trained": (
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3, 325]}},
        GROWN,
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, require: Callable[[bool, str], None]) -> Path:
    require(peft_adapters.installed(), "peft")
    return peft_adapters.base(tmp_path_factory.mktemp("base") / "gemma-3-tiny")


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_peft(base: Path, tmp_path: Path, case: str) -> None:
    """Every f32 where PyTorch's sums are in the order that `kernels` knows; all but a few BF16 elsewhere."""
    from peft import LoraConfig

    settings, size = CASES[case]
    model = peft_adapters.load(base)
    if size is not None:
        model.resize_token_embeddings(size, mean_resizing=False)
    config = LoraConfig(task_type="CAUSAL_LM", **{"r": 8, "lora_alpha": 16} | settings)
    folder = peft_adapters.make(model, tmp_path / "adapter", config)
    expected = peft_adapters.merged(base, folder, resize=size)
    made = open_source(str(folder))
    found = lora_files.read(made)
    found.setdefault("lm_head.weight", found["model.embed_tokens.weight"])
    assert set(found) == set(expected)
    rounded = 0
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name], weights, rtol=2e-6, atol=2e-7, err_msg=name)
        rounded += np.count_nonzero(bf16(found[name]) != bf16(weights))
        if _sums_are_known():
            assert np.array_equal(found[name], weights), name
    assert rounded <= 0.0005 * sum(weights.size for weights in expected.values())


def _sums_are_known() -> bool:
    import torch

    return platform.machine() == "x86_64" and torch.backends.cpu.get_cpu_capability() == "AVX2"


def test_a_change_of_tied_tables_is_added_once(base: Path, tmp_path: Path) -> None:
    """PEFT 0.21 adds it to the one table twice, although its model computes with one."""
    from peft import LoraConfig

    config = LoraConfig(r=4, lora_alpha=4, target_modules=["embed_tokens"], ensure_weight_tying=True)
    folder = peft_adapters.make(peft_adapters.load(base), tmp_path / "adapter", config)
    name = "model.embed_tokens.weight"
    once = lora_files.read(open_source(str(folder)))[name]
    before = lora_files.read(open_source(str(base)))[name]
    twice = peft_adapters.merged(base, folder)[name]
    np.testing.assert_allclose(2 * (once - before), twice - before, atol=1e-6)
    assert any("adds it twice" in note for note in open_source(str(folder)).notes)


def test_sizes_are_those_of_the_files(tiny: Path, tmp_path: Path) -> None:
    folder = lora_files.write(tmp_path / "a", lora_files.config(), lora_files.pair(64, 64), base=tiny)
    model, base = open_source(str(folder)), open_source(str(tiny))
    stored = as_stored(model)
    assert {name: (t.encoding, t.nbytes) for name, t in stored.tensors.items()} == {
        name: (t.encoding, t.nbytes) for name, t in base.tensors.items()
    }
    changed = model.tensors[f"{lora_files.Q0}.weight"]
    assert (changed.encoding.name, changed.place) == ("f32", base.tensors[changed.name].place)
    assert as_stored(base) is base
    assert model.adapter is not None
    assert (model.adapter.kind, model.adapter.rank, model.adapter.changed) == ("LoRA", 4, 1)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize(
    "prefix",
    [
        "base_model.model.model.", "base_model.model.model.language_model.", "base_model.model.language_model.model.",
        "base_model.model._orig_mod.model.", "model.",
    ],
)  # fmt: skip
def test_every_spelling_and_type_is_read(tiny: Path, tmp_path: Path, prefix: str, dtype: str) -> None:
    arrays = {
        prefix + name.removeprefix("base_model.model.model."): array for name, array in lora_files.pair(64, 64).items()
    }
    folder = lora_files.write(tmp_path / "a", lora_files.config(use_rslora=True), arrays, dtype=dtype, base=tiny)
    a, b = arrays.values()
    if dtype == "BF16":
        a, b = ((bf16(x).astype(np.uint32) << 16).view(np.float32) for x in (a, b))
    elif dtype == "F16":
        a, b = (x.astype(np.float16).astype(np.float32) for x in (a, b))
    name = f"{lora_files.Q0}.weight"
    before = lora_files.read(open_source(str(tiny)))[name]
    after = lora_files.read(open_source(str(folder)))[name]
    np.testing.assert_allclose(after - before, 4 * (b @ a), atol=1e-6)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, np.ndarray], str]] = {
    "another model's module": ({}, lora_files.pair(64, 64, module="model.layers.9.self_attn.q_proj"), "no place for"),
    "another size": ({}, lora_files.pair(64, 128), "does not fit model.layers.0.self_attn.q_proj.weight [64, 64]"),
    "another rank": ({"r": 8}, lora_files.pair(64, 64), "rank 8"),
    "a module that its config does not name": (
        {"target_modules": ["k_proj"]},
        lora_files.pair(64, 64),
        "does not name",
    ),
    "a tensor left over": (
        {},
        lora_files.pair(64, 64) | {"base_model.model.score.weight": np.zeros((2, 64), np.float32)},
        "holds base_model.model.score.weight",
    ),
    "a bias": (
        {"bias": "all"},
        lora_files.pair(64, 64) | {f"{lora_files.PREFIX}{lora_files.Q0}.bias": np.zeros(64, np.float32)},
        "q_proj.bias",
    ),
    "half a pair": ({}, dict(list(lora_files.pair(64, 64).items())[:1]), "lacks lora_B"),
    "nothing": ({}, {}, "changes no tensor"),
    "DoRA without norms": ({"use_dora": True}, lora_files.pair(64, 64), "lacks the norms"),
    "norms without DoRA": (
        {},
        lora_files.pair(64, 64)
        | {f"{lora_files.PREFIX}{lora_files.Q0}.lora_magnitude_vector": np.ones(64, np.float32)},
        "has the norms",
    ),
    "norms of another size": (
        {"use_dora": True},
        lora_files.pair(64, 64)
        | {f"{lora_files.PREFIX}{lora_files.Q0}.lora_magnitude_vector": np.ones(32, np.float32)},
        "does not fit",
    ),
    "tokens beyond the table": (
        {"trainable_token_indices": [320]},
        {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": np.zeros((1, 64), np.float32)},
        "320",
    ),
    "one of two tables grown": (
        {"modules_to_save": ["lm_head"]},
        {"base_model.model.lm_head.weight": np.zeros((328, 64), np.float32)},
        "does not fit",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(tiny: Path, tmp_path: Path, case: str) -> None:
    changes, arrays, words = REFUSED[case]
    folder = lora_files.write(tmp_path / "a", lora_files.config(**changes), arrays, base=tiny)
    with pytest.raises(GemmaqError) as caught:
        open_source(str(folder))
    assert isinstance(caught.value, InputError)
    assert words in caught.value.message
    assert caught.value.hint


def test_a_base_that_the_user_names_counts(tiny: Path, tmp_path: Path) -> None:
    folder = lora_files.write(tmp_path / "a", lora_files.config(), lora_files.pair(64, 64), base="org/elsewhere")
    assert open_source(str(folder), Wish(base=str(tiny))).name == "a"
