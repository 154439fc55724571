"""What is quantized together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import gemma4
from gemmaq.calibration.sensitivity_groups import Settings, active, groups, layer_passes, of_layers, operations
from gemmaq.checkpoint import Checkpoint
from gemmaq.sources.open import open_source


@pytest.fixture(scope="module")
def effective(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_source(str(gemma4.write(tmp_path_factory.mktemp("effective") / "model", gemma4.EFFECTIVE)))


def test_every_tensor_is_in_one_group(effective: Checkpoint) -> None:
    quantizable = {name for name, t in effective.tensors.items() if t.place.role.is_quantizable}
    for coarse in (False, True):
        names = [name for variant in groups(effective, coarse=coarse) for name in variant.names]
        assert len(names) == len(set(names))
        assert set(names) == quantizable


def test_coarse_groups_are_kinds_in_bands_of_layers(effective: Checkpoint) -> None:
    fine, coarse = (groups(effective, coarse=coarse) for coarse in (False, True))
    assert len(coarse) < len(fine)
    for variant in coarse:
        tensors = [effective.tensors[name] for name in variant.names]
        assert len({tensor.place.kind for tensor in tensors}) == 1
        layers = sorted(of_layers(effective, variant))
        assert layers == list(range(layers[0], layers[-1] + 1)) if layers else variant.is_table
        assert variant.first == (layers[0] if layers else 0)


def test_a_head_of_its_own_departs_behind_the_last_layer(effective: Checkpoint) -> None:
    head = replace(effective.embedding, name="lm_head.weight", place=effective.family.names.place("lm_head.weight"))
    untied = replace(effective, tensors={**effective.tensors, "lm_head.weight": head})
    last = groups(untied, coarse=False)[-1]
    assert last.names == ("lm_head.weight",)
    assert last.first == len(effective.config.layers)
    assert layer_passes([last], last.first) == 0


def test_small_models_are_measured_finely(effective: Checkpoint) -> None:
    assert not Settings().is_coarse(effective)
    assert Settings(tokens=1 << 40).is_coarse(effective)
    assert Settings(coarse=True).is_coarse(effective)


def test_only_the_experts_of_a_token_count(tmp_path: Path) -> None:
    source = open_source(str(gemma4.write(tmp_path / "experts", gemma4.EXPERTS)))
    layer = [t for t in source.matrices.values() if t.place.layer == 0]
    experts = sum(t.elements for t in layer if t.matrices > 1)
    assert active(source)[0] == sum(t.elements for t in layer) - experts + experts * 4 // 16
    variants = groups(source, coarse=False)
    assert operations(source, variants[-1:], 10) == 20 * active(source)[-1]
