"""Folders with safetensors files: headers, constants ahead of tensors, shards and their index."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from damage import small_model
from gemmaq.checkpoint import Checkpoint
from gemmaq.containers import hf_folder, mlx, safetensors
from gemmaq.planning.plan import Plan
from gemmaq.planning.planner import make_plan
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.sources.open import open_source
from inprocess import run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return open_source(str(small_model(tmp_path_factory.mktemp("model") / "gemma-3-small")))


@pytest.fixture(scope="module")
def plan(checkpoint: Checkpoint) -> Plan:
    return make_plan(checkpoint, Request(of("q4_0"), ("safetensors",)), safetensors.FORMAT)


def test_constants_are_part_of_the_head(plan: Plan) -> None:
    (file,), index = hf_folder.lay_out_shards(
        plan, safetensors.FORMAT, None, metadata={"format": "pt"}, always_index=False
    )
    length = int.from_bytes(file.head[:8], "little")
    header = json.loads(file.head[8 : 8 + length])
    assert index == {} and header["__metadata__"] == {"format": "pt"} and length % 8 == 0
    shapes = [name for name in header if name.endswith("_shape")]
    assert len(shapes) == sum(not tensor.encoding.is_float for tensor in plan.tensors)
    assert len(file.head) == 8 + length + 16 * len(shapes)
    assert min(piece.offset for placement in file.placements for piece in placement.pieces) == len(file.head)
    ends = [
        piece.offset + placement.tensor.source.rows * piece.row_bytes
        for placement in file.placements
        for piece in placement.pieces
    ]
    assert max(ends) == file.size


def test_shards_have_an_index_of_all_arrays(plan: Plan) -> None:
    files, index = hf_folder.lay_out_shards(
        plan, safetensors.FORMAT, 20_000, metadata={"format": "pt"}, always_index=False
    )
    assert len(files) > 2 and files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    weight_map = json.loads(index["model.safetensors.index.json"])["weight_map"]
    assert set(weight_map.values()) == {file.name for file in files}
    for tensor in plan.tensors:
        assert len({weight_map[name] for name in tensor.array_names}) == 1


def test_one_file_has_an_index_on_request(checkpoint: Checkpoint) -> None:
    plan = make_plan(checkpoint, Request(of("q8_0"), ("mlx",)), mlx.FORMAT)
    (file,), index = hf_folder.lay_out_shards(plan, mlx.FORMAT, None, metadata={}, always_index=True)
    assert file.name == "model.safetensors" and list(index) == ["model.safetensors.index.json"]


def test_stored_arrays_are_those_of_the_plan(checkpoint: Checkpoint, plan: Plan, tmp_path: Path) -> None:
    run("convert", checkpoint.location, "--to", "safetensors", "-q", "-o", tmp_path / "out")
    stored = hf_folder.arrays(sorted((tmp_path / "out").glob("*.safetensors")))
    for tensor in plan.tensors:
        for name, piece in zip(tensor.array_names, tensor.pieces, strict=True):
            assert (stored[name].dtype, stored[name].nbytes) == (piece.dtype, tensor.source.rows * piece.row_bytes)


def test_config_says_whether_the_head_is_tied(checkpoint: Checkpoint, plan: Plan) -> None:
    assert hf_folder.whole_config(checkpoint, plan, "bfloat16")["tie_word_embeddings"] is True
    untied = replace(checkpoint, tensors=dict(checkpoint.tensors))
    assert hf_folder.side_files(untied, {"a": 1}, with_towers=False)["config.json"] == b'{\n  "a": 1\n}\n'
