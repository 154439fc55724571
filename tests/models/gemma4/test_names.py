"""Tensor names of Gemma 4: spellings, places, and the slices that other layouts have for experts."""

from __future__ import annotations

import pytest

import gemma4
from gemmaq.models.gemma4 import names
from gemmaq.models.gemma4.sizes import SIZES
from gemmaq.models.roles import Role
from gemmaq.models.size import Size

COUNTS = {"E2B": 541, "E4B": 666, "12B": 667, "26B-A4B": 658, "31B": 833}
"""Tensors of published GGUF files, `rope_freqs` among them."""


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.label)
def test_published_sizes_have_as_many_tensors_as_published_files(size: Size) -> None:
    assert len(list(names.shapes(size.config))) + 1 == COUNTS[size.label]


@pytest.mark.parametrize("prefix", ["model.", "model.language_model.", "language_model.model."])
def test_every_spelling_has_one_name(prefix: str) -> None:
    for name, _ in names.shapes(gemma4.EXPERTS):
        assert names.canonical(prefix + name.removeprefix("model.")) == name


def test_towers_are_no_part_of_the_text_model() -> None:
    for name in ("model.vision_tower.encoder.layers.0.mlp.up_proj.linear.weight", "model.embed_audio.x.weight"):
        assert names.canonical(name) is None


def test_roles() -> None:
    roles = {names.place(name).kind: names.place(name).role for name, _ in names.shapes(gemma4.EXPERTS)}
    assert roles["experts gate+up"] == roles["experts down"] == Role.EXPERTS and roles["router"] == Role.ROUTER
    assert names.place(names.LAYER_EMBEDDING).role == Role.LAYER_EMBEDDING
    assert names.place(names.LAYER_PROJECTION).role == Role.LAYER_PROJECTION


@pytest.mark.parametrize("per_expert", [False, True])
def test_slices_cover_every_row_of_a_stack_once(per_expert: bool) -> None:
    for name, shape in names.shapes(gemma4.EXPERTS):
        slices = names.slices(name, shape, per_expert=per_expert)
        if names.place(name).role is not Role.EXPERTS:
            assert slices == ()
            continue
        rows = [row for part in slices for first, count in part.runs for row in range(first, first + count)]
        assert sorted(rows) == list(range(shape[0] * shape[1]))
        assert len(slices) == (shape[0] if per_expert else 1) * (2 if "gate_up" in name else 1)


def test_gate_comes_before_up() -> None:
    gate, up = names.slices("model.layers.1.experts.gate_up_proj", (2, 6, 4), per_expert=False)
    assert gate.name == "model.layers.1.experts.switch_glu.gate_proj.weight" and gate.shape == (2, 3, 4)
    assert gate.runs == ((0, 3), (6, 3)) and up.runs == ((3, 3), (9, 3))


def test_keys_and_values_of_layers_that_share_them_are_surplus() -> None:
    assert names.is_surplus("model.layers.5.self_attn.k_proj.weight", gemma4.EFFECTIVE)
    assert not names.is_surplus("model.layers.4.self_attn.k_proj.weight", gemma4.EFFECTIVE)
    assert not names.is_surplus("model.layers.5.self_attn.q_proj.weight", gemma4.EFFECTIVE)
