"""Plans of a request and the files they are laid out in."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmaq.checkpoint import Checkpoint
from gemmaq.convert.layout import lay_out, make_plans
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.sources.open import open_source

ALL = ("gguf", "mlx", "safetensors")


@pytest.fixture(scope="module")
def checkpoint(tiny: Path) -> Checkpoint:
    return open_source(str(tiny))


def test_one_container_lies_in_the_folder_itself_and_several_in_folders_of_their_own(checkpoint: Checkpoint) -> None:
    for to in (("mlx",), ALL):
        request = Request(of("q4_0"), to)
        artifacts = lay_out(checkpoint, make_plans(checkpoint, request, {}), Path("out"))
        assert [artifact.plans[0].format for artifact in artifacts] == list(to)
        assert [str(artifact.folder) for artifact in artifacts] == (
            ["out"] if len(to) == 1 else [f"out/{n}" for n in to]
        )


def test_files_hold_the_very_tensors_of_the_plan(checkpoint: Checkpoint) -> None:
    request = Request(of("q4_0"), ALL, shard_bytes=100_000)
    for artifact in lay_out(checkpoint, make_plans(checkpoint, request, {}), Path("out")):
        placed = [placement.tensor for file in artifact.files for placement in file.placements]
        assert sorted(map(id, placed)) == sorted(map(id, artifact.plans[0].everything))
        assert artifact.size == sum(file.size for file in artifact.files)


def test_scales_fit_all_containers_of_the_request_even_if_one_is_planned(checkpoint: Checkpoint) -> None:
    alone = make_plans(checkpoint, Request(of("q4_0"), ("gguf",)), {})
    shared = make_plans(checkpoint, Request(of("q4_0"), ALL), {}, only=["gguf"])
    assert [plan.format for plan in shared] == ["gguf"]
    assert not any(tensor.choice.portable for tensor in alone[0].tensors)
    assert all(tensor.choice.portable for tensor in shared[0].tensors)
