"""config.json of Gemma 3n in both spellings, and values that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

import gemma3n
from gemmaq.errors import InputError
from gemmaq.models.gemma3n.hf_config import from_hf, nested, to_hf


def test_both_spellings_of_rope_are_read() -> None:
    written = to_hf(gemma3n.CONFIG, "bfloat16")
    old = {key: value for key, value in written.items() if key != "rope_parameters"}
    new = {key: value for key, value in written.items() if key not in ("rope_theta", "rope_local_base_freq")}
    assert from_hf(written) == from_hf(old) == from_hf(new) == from_hf(nested(written)) == gemma3n.CONFIG


def test_one_width_counts_for_all_layers_and_usual_values_may_be_left_out() -> None:
    written = to_hf(gemma3n.CONFIG, "bfloat16") | {"intermediate_size": 512}
    del written["layer_types"], written["activation_sparsity_pattern"]
    assert from_hf(written) == gemma3n.CONFIG


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hidden_size": "256"}, "hidden_size"),
        ({"num_hidden_layers": 1 << 20}, "num_hidden_layers"),
        ({"intermediate_size": [512]}, "intermediate_size"),
        ({"intermediate_size": [True] * 25}, "intermediate_size"),
        ({"activation_sparsity_pattern": [1.0] * 25}, "activation_sparsity_pattern"),
        ({"layer_types": ["sliding_attention"]}, "layer_types"),
        ({"num_kv_shared_layers": 25}, "share"),
        ({"altup_active_idx": 4}, "altup_active_idx"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}, "sliding_attention": {}}}, "yarn"),
        ({"rope_parameters": 5}, "rope_parameters"),
        ({"rope_scaling": {"factor": 8.0}}, "rope_scaling"),
        ({"attention_bias": True}, "attention_bias"),
        ({"eos_token_id": [-1]}, "eos_token_id"),
    ],
)
def test_values_that_make_no_sense_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        from_hf(to_hf(gemma3n.CONFIG, "bfloat16") | change)
