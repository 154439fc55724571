"""Names that programs which train wrap a model in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.models.stored_names import bare, is_adapter, is_head, unwrapped, wrapping

NAME = "model.layers.0.mlp.up_proj.weight"
WRAPPERS = ("_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module")


@given(st.lists(st.sampled_from(WRAPPERS)), st.lists(st.sampled_from(WRAPPERS)), st.integers(0, 6), st.booleans())
def test_wrappers_are_taken_out_wherever_they_are(before: list[str], inside: list[str], at: int, peft: bool) -> None:
    parts = NAME.split(".")
    name = ".".join([*(["base_model.model"] if peft else []), *before, *parts[:at], *inside, *parts[at:]])
    assert unwrapped(name) == NAME
    assert sorted(wrapping(name)) == sorted([*before, *inside, *(["base_model.model"] if peft else [])])
    assert bare(name) == NAME.removeprefix("model.")


@pytest.mark.parametrize("name", [NAME, "language_model.model.norm.weight", "vision_tower.x.weight", "x"])
def test_other_names_stay(name: str) -> None:
    assert unwrapped(name) == name and wrapping(name) == ()


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        ("model.layers.0.self_attn.q_proj.lora_A.default.weight", True),
        ("model.layers.0.self_attn.q_proj.lora_magnitude_vector.default.weight", True),
        ("model.embed_tokens.lora_embedding_A.default", True),
        ("lm_head.modules_to_save.default.weight", True),
        ("lm_head.original_module.weight", True),
        ("model.layers.0.self_attn.q_proj.base_layer.weight", False),
        (NAME, False),
    ],
)
def test_tensors_of_adapters_are_known(name: str, adapter: bool) -> None:
    assert is_adapter(name) == adapter


def test_a_head_is_known_in_every_layout() -> None:
    assert is_head("lm_head.weight") and is_head("module.language_model.lm_head.weight")
    assert not is_head(NAME)
