"""Adapters of models with towers, and of Gemma 4: weights are those of PEFT."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
import lora_files
import peft_adapters
import seeing
from gemmaq.sources.open import open_source


@pytest.fixture(autouse=True)
def peft_is_there(require: Callable[[bool, str], None]) -> None:
    require(peft_adapters.installed(), "peft")


def compare(base: Path, folder: Path, load: Callable[[], Any], config: Any) -> int:
    """Assert that gemmaq reads what PEFT merges; returns how many tensors the adapter changes."""
    import peft

    peft_adapters.make(load(), folder, config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = peft.PeftModel.from_pretrained(load(), folder).merge_and_unload()
    made = open_source(str(folder))
    found, seen = lora_files.read(made), set()
    for stored, value in done.state_dict().items():
        name = made.family.names.canonical(stored)
        if name is None and made.family.towers is not None:
            name = made.family.towers.canonical(stored)
        if name in found:
            np.testing.assert_allclose(found[name], value.numpy().reshape(found[name].shape), rtol=2e-6, atol=2e-7)
            seen.add(name)
    assert seen == set(found)
    assert made.adapter is not None
    assert open_source(str(base)).adapter is None
    return made.adapter.changed


def test_a_vision_tower_is_adapted_with_the_text_model(tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText

    base = tmp_path / "sees"
    seeing.build(seeing.config_of()).save_pretrained(base)

    def load() -> Any:
        return AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)

    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "fc1"], bias="all")
    changed = compare(base, tmp_path / "adapter", load, config)
    towers = open_source(str(tmp_path / "adapter")).towers
    assert any(tensor.decoder is not None for tensor in towers.values())
    assert changed > 2 * 2


@pytest.mark.parametrize("kind", ["dense", "effective"])
def test_gemma_4_is_merged(tmp_path: Path, kind: str) -> None:
    from peft import LoraConfig

    base = gemma4.write(tmp_path / kind, gemma4.KINDS[kind])
    parts = ["q_proj", "k_proj", "o_proj", "up_proj", "per_layer_input_gate", "per_layer_model_projection"]
    config = LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", target_modules=parts)
    assert compare(base, tmp_path / "adapter", lambda: peft_adapters.load(base), config) > 4


def test_experts_of_gemma_4_are_merged(tmp_path: Path) -> None:
    from peft import LoraConfig

    base = gemma4.write(tmp_path / "experts", gemma4.KINDS["experts"])
    config = LoraConfig(
        r=2, lora_alpha=8, task_type="CAUSAL_LM", target_modules=["q_proj"],
        target_parameters=["experts.gate_up_proj", "experts.down_proj"],
    )  # fmt: skip
    layers = gemma4.KINDS["experts"].num_hidden_layers
    assert compare(base, tmp_path / "adapter", lambda: peft_adapters.load(base), config) == 3 * layers
