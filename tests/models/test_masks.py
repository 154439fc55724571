"""The mask of full sequences is causal, and no warning disturbs a progress bar."""

from __future__ import annotations

import warnings

import pytest

import gemma4
from gemmaq.models import gemma3
from gemmaq.models import gemma4 as gemma4_family
from gemmaq.models.masks import attention_mask
from synthetic import TINY

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
MODELS = {"gemma3": (gemma3.FAMILY, TINY), "gemma4": (gemma4_family.FAMILY, gemma4.EFFECTIVE)}


@pytest.mark.parametrize("family", MODELS)
def test_masks_are_made_without_a_warning(family: str) -> None:
    found, dimensions = MODELS[family]
    config = found.modules.hf_config(dimensions)
    hidden, positions = torch.zeros(1, 80, dimensions.hidden_size), torch.arange(80).unsqueeze(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks = {kind: attention_mask(config, kind, hidden, positions) for kind in set(config.layer_types)}
    local = masks["sliding_attention"]
    assert local is not None and not bool(local[0, 0, 79, 79 - dimensions.sliding_window])
    assert bool(local[0, 0, 79, 78]) and not bool(local[0, 0, 0, 1])
