"""config.json of drafters: read in both spellings, by transformers too; what no drafter has is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
import gemma4_drafter
import oracles
from gemma4_drafter import DRAFTERS, Drafter
from gemmaq.errors import InputError
from gemmaq.models.config import OF_TARGET
from gemmaq.models.families import of_config
from gemmaq.models.gemma4_drafter import FAMILY, hf_config


@pytest.mark.parametrize("kind", DRAFTERS)
def test_a_config_is_read_as_it_was_written(kind: str) -> None:
    drafter = DRAFTERS[kind]
    assert of_config(drafter.document()) is FAMILY
    assert hf_config.from_hf(drafter.document()) == drafter.config


def test_a_drafter_shares_the_keys_of_all_layers_whatever_the_file_counts() -> None:
    document = DRAFTERS["dense"].document()
    document["text_config"]["num_kv_shared_layers"] = 0
    config = hf_config.from_hf(document)
    assert config == DRAFTERS["dense"].config and config.own_layers == 0
    assert {layer.kv_from for layer in config.layers} == {OF_TARGET}


def test_the_projections_count_as_parameters() -> None:
    config = DRAFTERS["dense"].config
    assert config.parameters == sum(values.size for _, values in gemma4_drafter.weights(config))


@pytest.mark.parametrize(
    ("change", "text_change"),
    [
        ({"backbone_hidden_size": None}, {}),
        ({"backbone_hidden_size": 0}, {}),
        ({"backbone_hidden_size": "256"}, {}),
        ({}, {"hidden_size_per_layer_input": 256}),
        ({}, {"enable_moe_block": True}),
        ({}, {"use_double_wide_mlp": True}),
        ({}, {"num_hidden_layers": 0}),
        ({}, {"num_hidden_layers": "4"}),
    ],
)
def test_values_that_no_drafter_has_are_refused(change: dict[str, Any], text_change: dict[str, Any]) -> None:
    document = DRAFTERS["effective"].document() | change
    document["text_config"] |= text_change
    with pytest.raises(InputError, match=r"config\.json"):
        hf_config.from_hf(document)


def test_a_target_is_no_drafter() -> None:
    from gemmaq.models.gemma4 import hf_config as targets

    document = targets.to_hf(gemma4.EFFECTIVE, "bfloat16") | {"num_kv_shared_layers": 10}
    with pytest.raises(InputError, match="share keys and values of no layer"):
        targets.from_hf(document)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["effective", "unified"])
def test_transformers_loads_what_the_tests_write_and_saves_what_is_read(kind: str, tmp_path: Path, require) -> None:
    """A proof of the generator, and of the spelling of transformers, `per_layer_config`."""
    oracles.need(require, "torch", "transformers")
    import torch
    from transformers import AutoModelForCausalLM

    drafter = DRAFTERS[kind]
    folder = gemma4_drafter.write(tmp_path / "drafter", drafter)
    model, found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(model).__name__ == drafter.document()["architectures"][0]
    assert (model.masked_embedding is not None) == drafter.centroids
    keys = {
        at: torch.from_numpy(np.random.default_rng(2).standard_normal((1, layer.kv_heads, 8, layer.head_dim))).float()
        for at, layer in (("sliding_attention", drafter.config.layers[0]), ("full_attention", drafter.config.layers[3]))
    }
    inputs = torch.ones(1, 1, 2 * drafter.config.backbone_hidden_size)
    with torch.inference_mode():
        out = model(
            inputs_embeds=inputs,
            position_ids=torch.tensor([[7]]),
            shared_kv_states={kind: (values, values) for kind, values in keys.items()},
        )
    assert out.logits.shape == (1, 1, drafter.config.vocab_size) and bool(out.logits.isfinite().all())
    model.save_pretrained(tmp_path / "saved")
    assert hf_config.from_hf(json.loads((tmp_path / "saved/config.json").read_text())) == drafter.config


@pytest.mark.oracle
def test_the_written_config_is_that_of_a_drafter_without_centroids(require) -> None:
    oracles.need(require, "transformers")
    from transformers import Gemma4AssistantConfig

    config = DRAFTERS["dense"].config
    read = Gemma4AssistantConfig(**hf_config.to_hf(config, "bfloat16"))
    assert read.backbone_hidden_size == gemma4.DENSE.hidden_size and not read.use_ordered_embeddings
    assert hf_config.from_hf(read.to_dict()) == config
    assert Drafter(config).document()["use_ordered_embeddings"] is False
