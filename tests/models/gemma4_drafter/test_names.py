"""Names of drafters: projections have some of their own, and centroids none."""

from __future__ import annotations

import gemma4_drafter
from gemmaq.models.gemma4_drafter import names
from gemmaq.models.roles import Role


def test_projections_are_matrices_outside_the_layers() -> None:
    shapes = dict(names.shapes(gemma4_drafter.KINDS["dense"]))
    assert shapes[names.PRE] == (512, 2 * 256) and shapes[names.POST] == (256, 512)
    for name in (names.PRE, names.POST):
        assert names.canonical(name.removeprefix("model.")) == names.canonical(name) == name
        assert names.from_gguf(names.to_gguf(name)) == name
        assert names.place(name).role is Role.PROJECTION and names.place(name).layer is None


def test_no_layer_has_keys_or_values() -> None:
    assert not [name for name, _ in names.shapes(gemma4_drafter.KINDS["unified"]) if "k_proj" in name or "v_" in name]


def test_centroids_are_outside_the_model() -> None:
    assert [names.canonical(name) for name in gemma4_drafter.MASKED] == [None, None]
    assert names.from_gguf("masked_embd_centroids.weight") is names.from_gguf("masked_embd_ordering") is None


def test_drafters_have_one_layout() -> None:
    assert names.nested(names.EMBEDDING) == names.EMBEDDING
