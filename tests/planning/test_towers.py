"""Types and names of towers in a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gemma4_towers
from gemmaq import containers
from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError
from gemmaq.planning.plan import PlannedTensor
from gemmaq.planning.towers import TEXT_ALONE, plan_towers
from gemmaq.sources.open import open_source


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    kind = next(iter(gemma4_towers.KINDS.values()))
    return open_source(str(gemma4_towers.write(tmp_path_factory.mktemp("seeing") / "model", kind)))


def planned(checkpoint: Checkpoint, container: str, mmproj: str = "f16") -> list[PlannedTensor]:
    target = containers.writer(container).FORMAT
    return plan_towers(checkpoint, target, mmproj, vector=ENCODINGS["bf16"], norm_shift=0.0)


def test_gguf_has_the_type_that_is_asked_for_and_its_own_names(checkpoint: Checkpoint) -> None:
    for mmproj in ("f16", "q8_0"):
        tensors = planned(checkpoint, "gguf", mmproj)
        assert {mmproj, "f32"} <= {tensor.encoding.name for tensor in tensors}
        assert all(tensor.name.startswith(("v.", "mm.", "a.")) for tensor in tensors)
        assert all(tensor.encoding.fits(tensor.source.columns) for tensor in tensors)


def test_folders_have_one_type_whatever_is_asked_for(checkpoint: Checkpoint) -> None:
    for container in ("mlx", "safetensors"):
        tensors = planned(checkpoint, container, "q8_0")
        assert {tensor.encoding.name for tensor in tensors} == {"bf16"}
        assert len({tensor.name for tensor in tensors}) == len(tensors) == len(planned(checkpoint, "gguf"))


def test_a_missing_tensor_is_named(checkpoint: Checkpoint) -> None:
    name, *_ = checkpoint.towers
    without = replace(checkpoint, towers={key: tensor for key, tensor in checkpoint.towers.items() if key != name})
    with pytest.raises(InputError, match=f"lacks {name}") as caught:
        planned(without, "gguf")
    assert caught.value.hint == TEXT_ALONE
