"""Artifacts of every kind of Gemma 4 against themselves and their source: experts, tables, generated tensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import gemma4
import gemma4_tokenizer
import gemma4_towers
from damage import sealed_anew
from inprocess import run
from records import recorded

WAYS: dict[str, tuple[str, ...]] = {
    "gguf": ("--to", "gguf"),
    "mlx": ("--to", "mlx"),
    "compressed-tensors": ("--to", "safetensors", "--max-shard-size", "2m"),
    "bf16": ("--to", "safetensors", "--quant", "bf16"),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with towers; that of the model with experts has none."""
    root = tmp_path_factory.mktemp("gemma4")
    experts = gemma4.write(root / "gemma-4-experts-text", gemma4.EXPERTS)
    return gemma4_towers.folders(root) | {"experts": gemma4_tokenizer.write(experts)}


@pytest.fixture(scope="module")
def experts(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Artifacts of the model with experts."""
    root = tmp_path_factory.mktemp("made")
    for way, options in WAYS.items():
        run("convert", sources["experts"], *options, "-o", root / way)
    return {way: root / way for way in WAYS}


def verified(artifact: Path, *options: object, code: int = 0) -> dict[str, list[str]]:
    """Problems and notes of an artifact."""
    (entry,) = json.loads(run("verify", artifact, "--json", *options, code=code).stdout)["artifacts"]
    return {name: entry.get(name, []) for name in ("problems", "notes")}


@pytest.mark.parametrize("kind", [kind for kind in gemma4.KINDS if kind != "experts"])
@pytest.mark.parametrize("way", WAYS)
def test_the_right_source_gives_every_byte(sources: dict[str, Path], tmp_path: Path, kind: str, way: str) -> None:
    run("convert", sources[kind], *WAYS[way], "-o", tmp_path / "out")
    assert verified(tmp_path / "out", "--against", sources[kind]) == {"problems": [], "notes": []}


@pytest.mark.parametrize("way", WAYS)
def test_experts_are_compared_stack_by_stack(sources: dict[str, Path], experts: dict[str, Path], way: str) -> None:
    done = json.loads(run("verify", experts[way], "--against", sources["experts"], "--json").stdout)
    (entry,) = done["artifacts"]
    assert entry["problems"] == entry["notes"] == []
    kinds = {kind["kind"]: kind["tensors"] for kind in entry["kinds"]}
    assert kinds["experts gate+up"] == kinds["experts down"] == kinds["router"] == 6


def header(path: Path) -> tuple[int, dict[str, dict[str, list[int]]]]:
    """Where the data begins, and the entries of a safetensors file."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    return start, json.loads(content[8:start])


SLICES = {
    "mlx": ("language_model.model.layers.2.experts.switch_glu.up_proj.weight", 5 * 96 * 256 // 2),
    "compressed-tensors": ("model.layers.2.experts.5.up_proj.weight_packed", 0),
    "bf16": ("model.layers.2.experts.gate_up_proj", (5 * 192 + 96) * 256 * 2),
}
"""Array with the rows of an expert's up projection, and where in it they begin."""


@pytest.mark.parametrize("way", SLICES)
def test_a_changed_weight_of_one_expert_is_seen(
    sources: dict[str, Path], experts: dict[str, Path], tmp_path: Path, way: str
) -> None:
    """In the digests, and with digests of the changed file, against the source."""
    artifact = Path(shutil.copytree(experts[way], tmp_path / "copy"))
    array, before = SLICES[way]
    (path,) = (file for file in artifact.glob("*.safetensors") if array in header(file)[1])
    content, (start, entries) = bytearray(path.read_bytes()), header(path)
    content[start + entries[array]["data_offsets"][0] + before] ^= 0x10
    path.write_bytes(content)
    assert any("it was changed" in problem for problem in verified(artifact, code=8)["problems"])
    sealed_anew(artifact)
    assert verified(artifact)["problems"] == []
    problem, card = verified(artifact, "--against", sources["experts"], code=8)["problems"]
    assert card.startswith("README.md is not")  # it has the digest of the file as it was
    assert "layers.2.experts.gate_up_proj" in problem
    assert "1 of 786,432" in problem


def test_a_missing_expert_is_named(experts: dict[str, Path], tmp_path: Path) -> None:
    artifact = Path(shutil.copytree(experts["compressed-tensors"], tmp_path / "copy"))
    said = recorded(artifact)
    named = [tensor["name"] for tensor in said["tensors"]]
    assert "model.layers.0.experts.gate_up_proj" in named
    array = b'"model.layers.3.experts.7.down_proj.weight_scale"'
    for path in artifact.glob("*.safetensors"):
        path.write_bytes(path.read_bytes().replace(array, array.replace(b"7", b"X")))
    index = artifact / "model.safetensors.index.json"
    index.write_bytes(index.read_bytes().replace(array, array.replace(b"7", b"X")))
    problems = verified(artifact, code=8)["problems"]
    assert any("model.layers.3.experts.7.down_proj.weight_scale is missing" in problem for problem in problems)


def test_rope_factors_of_a_gguf_file_are_on_record(experts: dict[str, Path]) -> None:
    first = recorded(experts["gguf"])["tensors"][0]
    assert first["name"] == "rope_freqs.weight" and first["how"] == "generated" and first["shape"] == [64]
