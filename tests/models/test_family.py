"""What every family promises: names that survive the way to GGUF and back, and a place for every tensor."""

from __future__ import annotations

import pytest

from gemmaq.models.families import FAMILIES
from gemmaq.models.family import Family
from gemmaq.models.roles import Role

EVERY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@EVERY
def test_names_survive_gguf_and_every_tensor_has_a_place(family: Family) -> None:
    names, config = family.names, family.sizes[0].config
    shapes = dict(names.shapes(config))
    for name, shape in shapes.items():
        place = names.place(name)
        assert names.from_gguf(names.to_gguf(name)) == names.canonical(name) == name
        assert place.kind in names.KINDS
        assert place.role.is_matrix == (len(shape) > 1)
        assert (place.role in (Role.EXPERTS, Role.FLOAT)) >= (len(shape) > 2) >= (place.role is Role.EXPERTS)
        if place.layer is not None:
            assert names.in_layer(place.layer, place.part) == name
    roles = [names.place(name).role for name in shapes]
    assert roles[0] == names.place(names.EMBEDDING).role == Role.EMBEDDING and names.HEAD not in shapes
    assert names.place(names.FINAL_NORM).role == Role.NORM and names.place(names.HEAD).role == Role.HEAD


@EVERY
def test_matrices_of_a_layer_are_at_one_input_site_each(family: Family) -> None:
    names = family.names
    places = [names.place(name) for name, _ in names.shapes(family.sizes[0].config)]
    matrices = [place.part for place in places if place.layer == 0 and place.role is Role.MATRIX]
    shared = [part for parts in names.input_sites(family.sizes[0].config, 0).values() for part in parts]
    assert sorted(shared) == sorted(matrices)
    assert all(parts[0] == site for site, parts in names.input_sites(family.sizes[0].config, 0).items())


@EVERY
def test_a_name_that_no_model_has_is_no_matrix(family: Family) -> None:
    for name in ("model.layers.0.self_attn.other.weight", "x", "model.layers.x.mlp.down_proj.weight"):
        assert not family.names.place(name).role.is_quantizable
    assert family.names.from_gguf("blk.0.other.weight") is None


@EVERY
def test_configs_survive_config_json_and_gguf(family: Family) -> None:
    for size in family.sizes:
        config = size.config
        assert family.configs.from_hf(family.configs.to_hf(config, "bfloat16")) == config
        assert family.configs.with_vocabulary(config, 99).vocab_size == 99
        keys = {f"{family.gguf.ARCHITECTURE}.{key}": value for key, value in family.gguf.from_config(config).items()}
        shapes = {family.names.to_gguf(name): shape for name, shape in family.names.shapes(config)}
        again = family.gguf.to_config(keys, shapes)
        assert again.layers == config.layers and again.rope == config.rope


@EVERY
def test_every_tensor_of_the_towers_has_a_name_everywhere(family: Family) -> None:
    towers = family.towers
    if towers is None:
        pytest.skip("the family has no towers")
    for config in {size.towers_config for size in family.sizes if size.towers_config}:
        shapes = dict(towers.shapes(config, 64))
        stored = {towers.to_gguf(name): shape for name, shape in shapes.items()}
        assert len(stored) == len(shapes)
        for name, shape in shapes.items():
            assert towers.canonical(towers.to_hf(name)) == towers.canonical(name) == name
            assert towers.mmproj_type(name, shape, "bf16") in ("f32", "f16", "bf16")
            assert name.partition(".")[0] in towers.MODULES
