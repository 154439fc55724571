"""Gemma 4's layers in transformers."""

from __future__ import annotations

import pytest

import gemma4
from gemmaq.models.gemma4 import modules, names

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_a_layer_has_the_tensors_of_the_names(kind: str) -> None:
    config = gemma4.KINDS[kind]
    made = modules.hf_config(config)
    shapes = dict(names.shapes(config))
    for index in (0, config.num_hidden_layers - 1):
        with torch.device("meta"):
            layer = modules.decoder_layer(made, index)
        state = {f"model.layers.{index}.{name}": tuple(value.shape) for name, value in layer.state_dict().items()}
        assert state == {name: shape for name, shape in shapes.items() if names.place(name).layer == index}
    assert modules.attention_kinds(made) == tuple(
        "sliding_attention" if local else "full_attention" for local in config.layer_pattern
    )


def test_the_norm_multiplies_with_its_weight() -> None:
    hidden, weight = torch.tensor([[3.0, 4.0]]), torch.tensor([2.0, 1.0])
    expected = torch.tensor([[6.0, 4.0]]) / (12.5**0.5)
    assert torch.allclose(modules.rms_norm(hidden, weight, 0.0), expected)
    assert modules.embedding_scale(gemma4.DENSE) == 16.0
