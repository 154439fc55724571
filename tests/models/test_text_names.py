"""Names of text tensors: spellings, GGUF names and back, places."""

from __future__ import annotations

import pytest

from gemmaq.models.roles import GATE, Place, Role
from gemmaq.models.text_names import EMBEDDING, HEAD, Table, canonical


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("language_model.model.norm.weight", "model.norm.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        ("model.norm.weight", "model.norm.weight"),
        ("language_model.lm_head.weight", HEAD),
        ("norm.weight", "model.norm.weight"),
        ("tower.norm.weight", None),
        ("model.tower.norm.weight", None),
        ("watchtower.weight", "model.watchtower.weight"),
        ("tower", "tower"),
    ],
)
def test_every_spelling_has_one_name(name: str, expected: str | None) -> None:
    assert canonical(name, ("tower",)) == expected


TABLE = Table(
    {"mlp.gate_proj": "ffn_gate.weight", "input_layernorm": "attn_norm.weight", "scale": "scale.weight"},
    places={"mlp.gate_proj": (Role.MATRIX, GATE), "scale": (Role.SCALAR, "scalar")},
    outer={"model.table.weight": ("table.weight", Place(Role.FLOAT, kind="table"))},
    bare=("scale",),
)
PLACES = {
    EMBEDDING: ("token_embd.weight", Place(Role.EMBEDDING, kind="embedding")),
    HEAD: ("output.weight", Place(Role.HEAD, kind="head")),
    "model.table.weight": ("table.weight", Place(Role.FLOAT, kind="table")),
    "model.layers.12.mlp.gate_proj.weight": ("blk.12.ffn_gate.weight", Place(Role.MATRIX, 12, "mlp.gate_proj", GATE)),
    "model.layers.0.input_layernorm.weight": ("blk.0.attn_norm.weight", Place(Role.NORM, 0, "input_layernorm", "norm")),
    "model.layers.0.scale": ("blk.0.scale.weight", Place(Role.SCALAR, 0, "scale", "scalar")),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_table_gives_names_in_gguf_and_places_and_leads_back(name: str) -> None:
    gguf, place = PLACES[name]
    assert (TABLE.to_gguf(name), TABLE.place(name), TABLE.from_gguf(gguf)) == (gguf, place, name)


def test_other_names_are_no_tensors_of_the_family() -> None:
    for name in ("blk.0.other.weight", "blk.x.ffn_gate.weight", "blk.0", "other.weight", "0.ffn_gate.weight", ""):
        assert TABLE.from_gguf(name) is None
    for name in ("model.other.weight", "model.layers.0.other.weight", ""):
        assert TABLE.place(name) == Place(Role.SCALAR)
