"""What the layers of every family promise to whoever runs them."""

from __future__ import annotations

import pytest

import gemma4
from gemmaq.models.families import FAMILIES
from gemmaq.models.roles import Role
from synthetic import TINY

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
MODELS = {"gemma3": ("gemma3", TINY)} | {kind: ("gemma4", config) for kind, config in gemma4.KINDS.items()}


@pytest.mark.parametrize("kind", MODELS)
def test_inputs_of_layers_and_experts_are_those_of_the_tensors(kind: str) -> None:
    name, config = MODELS[kind]
    family = next(family for family in FAMILIES if family.name == name)
    names, modules = family.names, family.modules
    shapes = dict(names.shapes(config))
    outside = {
        name: torch.zeros((3, *shape[1:]) if names.place(name).role.is_table else shape)
        for name, shape in shapes.items()
        if names.place(name).layer is None and name not in (names.EMBEDDING, names.FINAL_NORM)
    }
    assert bool(outside) == bool(config.layer_embedding)
    if outside:
        made = modules.layer_inputs(config, torch.zeros(3, config.hidden_size), outside)
        assert made.shape == (3, config.num_hidden_layers, config.layer_embedding)
    stacks = {
        names.place(name).part: shape[-1]
        for name, shape in shapes.items()
        if names.place(name).role is Role.EXPERTS and names.place(name).layer == 0
    }
    module = modules.decoder_layer(modules.hf_config(config), 0)
    experts = getattr(module, "experts", None)
    assert (experts is None) == (not stacks)
    found = modules.expert_inputs(experts, 1, torch.zeros(2, config.hidden_size)) if stacks else {}
    assert {part: values.shape for part, values in found.items()} == {part: (2, size) for part, size in stacks.items()}
