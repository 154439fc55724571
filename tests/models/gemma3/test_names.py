"""Tensor names: every spelling leads to one name, GGUF names come back, and every tensor has a role."""

from __future__ import annotations

from collections import Counter

import pytest

from gemmaq.models.gemma3 import names
from gemmaq.models.gemma3.sizes import SIZES
from gemmaq.models.roles import Role
from synthetic import TINY


@pytest.mark.parametrize(
    "prefix",
    [
        "model.",
        "language_model.model.",
        "model.language_model.",
        "language_model.",
        "model.model.language_model.model.",
        "",
    ],
)
def test_every_spelling_has_one_name(prefix: str) -> None:
    for name, _ in names.shapes(TINY):
        assert names.canonical(prefix + name.removeprefix("model.")) == name
    for head in ("lm_head.weight", "language_model.lm_head.weight"):
        assert names.canonical(head) == names.HEAD


@pytest.mark.parametrize("name", ["vision_tower.a.weight", "model.multi_modal_projector.b", "vision_model.c"])
def test_the_vision_side_has_none(name: str) -> None:
    assert names.canonical(name) is None


def test_names_in_gguf_come_back() -> None:
    for name in [*(name for name, _ in names.shapes(TINY)), names.HEAD]:
        assert names.from_gguf(names.to_gguf(name)) == name
    for unknown in ("rope_freqs.weight", "blk.0.attn_q.bias", "blk.0.ssm_a.weight", "blk.x.attn_q.weight"):
        assert names.from_gguf(unknown) is None


def test_every_tensor_has_its_place() -> None:
    roles = Counter(names.place(name).role for name, _ in names.shapes(TINY))
    layers = TINY.num_hidden_layers
    assert roles == {Role.EMBEDDING: 1, Role.MATRIX: 7 * layers, Role.NORM: 6 * layers + 1}
    place = names.place("model.layers.3.mlp.down_proj.weight")
    assert (place.layer, place.part, place.kind) == (3, "mlp.down_proj", "down")
    assert names.place(names.HEAD).role is Role.HEAD
    assert names.place("model.layers.3.mlp.other.weight").role is Role.SCALAR
    assert {names.place(name).kind for name, _ in names.shapes(TINY)} <= set(names.KINDS)


def test_matrices_share_inputs_of_the_same_width() -> None:
    shapes = dict(names.shapes(TINY))
    parts = [part for site in names.input_sites(TINY, 0).values() for part in site]
    assert len(set(parts)) == 7
    for site in names.input_sites(TINY, 0).values():
        assert len({shapes[names.in_layer(0, part)][1] for part in site}) == 1


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.label)
def test_shapes_add_up_to_the_parameters_of_the_config(size) -> None:
    total = 0
    for _, shape in names.shapes(size.config):
        count = 1
        for side in shape:
            count *= side
        total += count
    assert total == size.config.parameters
