"""Networks of Gemma 4: what layers take besides is that of the model, and gradients reach it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gemma4
from gemmaq.inference.decoder import decoder
from gemmaq.inference.device import Device
from gemmaq.qat import grids, model
from gemmaq.sources.open import open_source
from inprocess import run

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
TEACHER, STUDENT = (
    model.NetworkSpec(grid=grid, activations=False, dtype=torch.float32) for grid in (None, grids.find("int4-channel"))
)


@pytest.mark.parametrize("kind", ["dense", "effective", "unified"])
def test_a_network_computes_what_the_layers_do(kind: str, tmp_path: Path) -> None:
    checkpoint = open_source(str(gemma4.write(tmp_path / "gemma-4-tiny", gemma4.KINDS[kind])))
    ids = np.random.default_rng(0).integers(0, 512, (2, 40))
    with decoder(checkpoint, Device(torch.device("cpu"), None)) as net:
        with torch.no_grad():
            (batch,) = net.embed(ids)
            for index in range(net.layers):
                net.through(net.layer(index), index, [batch])
            wanted = net.normed(batch.hidden)
        rows = model.embedding(net)
        teacher = model.network(net, TEACHER, rows, tokens=np.unique(ids))
        with torch.no_grad():
            found = teacher(torch.from_numpy(ids), lambda hidden, embedding: hidden)
        np.testing.assert_allclose(found, wanted, atol=2e-5 * float(wanted.abs().max()))


def test_gradients_reach_keys_of_earlier_layers_and_the_embedding(tmp_path: Path) -> None:
    """The same whether activations are kept or computed again."""
    checkpoint = open_source(str(gemma4.write(tmp_path / "gemma-4-tiny", gemma4.EFFECTIVE)))
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 512, (1, 24)))
    found = []
    with decoder(checkpoint, Device(torch.device("cpu"), None)) as net:
        rows = torch.from_numpy(net.read(checkpoint.embedding))
        for recompute in (False, True):
            spec = model.NetworkSpec(grid=STUDENT.grid, activations=False, dtype=torch.float32, recompute=recompute)
            student = model.network(net, spec, torch.nn.Parameter(rows.clone()), tokens=np.unique(ids))
            student(ids, lambda hidden, embedding: hidden.square().sum()).backward()
            found.append({name: weight.grad for name, weight in model.trained(student).items()})
    assert set(found[0]) == set(found[1])
    for name, gradient in found[0].items():
        assert gradient is not None and bool(gradient.any()), name
        torch.testing.assert_close(found[1][name], gradient)
    assert {"embedding", "layers.3.self_attn.k_proj.weight", "layers.9.per_layer_input_gate.weight"} <= set(found[0])


def test_a_model_with_experts_is_refused_at_once(tmp_path: Path) -> None:
    source = gemma4.write(tmp_path / "gemma-4-tiny", gemma4.EXPERTS)
    said = run("qat", source, "--text", tmp_path / "none.txt", "-o", tmp_path / "out", code=2).stderr
    assert "a model with experts cannot be trained" in said and "--method gptq" in said
