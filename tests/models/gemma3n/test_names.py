"""Tensor names of Gemma 3n: spellings, places, stacks and tensors that no layer uses."""

from __future__ import annotations

import pytest

import gemma3n
from gemmaq.models.gemma3n import names
from gemmaq.models.roles import Role


@pytest.mark.parametrize("prefix", ["model.", "model.language_model.", "language_model.model."])
def test_every_spelling_has_one_name(prefix: str) -> None:
    for name, _ in names.shapes(gemma3n.CONFIG):
        assert names.canonical(prefix + name.removeprefix("model.")) == names.canonical(names.nested(name)) == name
    assert names.canonical("model.audio_tower.conformer.0.norm.weight") is None


def test_every_further_stream_has_a_matrix_of_the_stack() -> None:
    slices = names.slices(names.INTO_STREAMS, (3, 8, 8), per_expert=False)
    assert [part.name for part in slices] == [f"model.altup_projections.{at}.weight" for at in range(3)]
    assert [part.runs for part in slices] == [((0, 8),), ((8, 8),), ((16, 8),)]
    assert names.slices(names.EMBEDDING, (8, 8), per_expert=False) == ()


def test_what_quantizers_leave_alone_has_a_role_of_its_own() -> None:
    parts = ("altup.modality_router", "laurel.linear_left", "laurel.linear_right")
    assert {names.place(names.in_layer(0, part)).role for part in parts} == {Role.FLOAT}
    assert names.place(names.in_layer(0, "altup.correction_coefs")).role is Role.ROUTER


def test_idle_keys_and_values_have_stand_ins() -> None:
    idle = names.idle(gemma3n.CONFIG)
    assert len(idle) == 15 and not set(idle) & set(dict(names.shapes(gemma3n.CONFIG)))
    assert idle["model.layers.24.self_attn.k_norm.weight"] == "model.layers.19.self_attn.k_norm.weight"
