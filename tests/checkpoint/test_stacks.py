"""Stacks of experts are read from whatever tensors a folder has for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gemma4
import quantized_folders
from gemmaq.checkpoint.folder import open_folder
from gemmaq.checkpoint.rows import weights
from gemmaq.checkpoint.stacks import padded
from gemmaq.errors import InputError
from gemmaq.files.span import Reader
from gemmaq.models.gemma4 import names
from gemmaq.models.roles import Role
from synthetic import bf16, write_safetensors


def sliced(tensors: dict[str, np.ndarray], *, per_expert: bool) -> dict[str, np.ndarray]:
    """The tensors with every stack of experts cut into slices."""
    result = {}
    for name, values in tensors.items():
        slices = names.slices(name, values.shape, per_expert=per_expert)
        rows = values.reshape(-1, values.shape[-1])
        for part in slices:
            result[part.name] = np.concatenate([rows[at : at + n] for at, n in part.runs]).reshape(part.shape)
        if not slices:
            result[name] = values
    return result


@pytest.fixture(scope="module")
def whole() -> dict[str, np.ndarray]:
    return dict(gemma4.weights(gemma4.EXPERTS))


@pytest.mark.parametrize("per_expert", [False, True])
def test_slices_read_like_the_stack(tmp_path: Path, whole: dict[str, np.ndarray], per_expert: bool) -> None:
    stored = sliced(whole, per_expert=per_expert)
    expected = open_folder(gemma4.write(tmp_path / "whole", gemma4.EXPERTS, whole), "m", "m")
    found = open_folder(gemma4.write(tmp_path / "sliced", gemma4.EXPERTS, stored), "m", "m")
    assert list(found.tensors) == list(expected.tensors) and found.parameters == expected.parameters
    with Reader() as reader:
        for tensor, other in zip(found.tensors.values(), expected.tensors.values(), strict=True):
            if tensor.place.role is Role.EXPERTS:
                assert np.array_equal(weights(tensor, 0, tensor.rows, reader), weights(other, 0, other.rows, reader))
                assert np.array_equal(weights(tensor, 90, 120, reader), weights(other, 90, 120, reader))


def test_a_missing_expert_is_named(tmp_path: Path, whole: dict[str, np.ndarray]) -> None:
    stored = sliced(whole, per_expert=True)
    del stored["model.layers.1.experts.7.up_proj.weight"]
    with pytest.raises(InputError, match=r"layers\.1\.experts\.7\.up_proj"):
        open_folder(gemma4.write(tmp_path, gemma4.EXPERTS, stored), "m", "m")


def test_experts_of_one_stack_must_be_stored_alike(tmp_path: Path, whole: dict[str, np.ndarray]) -> None:
    stored = sliced(whole, per_expert=True)
    folder = gemma4.write(tmp_path, gemma4.EXPERTS, stored)
    odd = "model.layers.0.experts.3.down_proj.weight"
    layout = {name: ("F32" if name == odd else "BF16", values.shape) for name, values in stored.items()}
    data = {name: values if name == odd else bf16(values) for name, values in stored.items()}
    write_safetensors(folder / "model.safetensors", layout, data)
    with pytest.raises(InputError, match="stored alike"):
        open_folder(folder, "m", "m")


@pytest.mark.parametrize("kind", ["awq of 32", "nf4", "llm.int8"])
def test_experts_of_other_programs_make_a_stack(tmp_path: Path, whole: dict[str, np.ndarray], kind: str) -> None:
    """Each is quantized by itself; rows of zeros may follow."""
    settings, make, _ = quantized_folders.KINDS[kind]
    stored: dict[str, tuple[str, np.ndarray]] = {}
    expected: dict[str, np.ndarray] = {}
    random = np.random.default_rng(3)
    for name, values in sliced(whole, per_expert=True).items():
        if ".experts." not in name:
            stored[name] = ("BF16", bf16(values) if values.dtype == np.float32 else values)
            continue
        arrays, expected[name] = make(random, (values.shape[0], values.shape[1]))
        stem = name.removesuffix(".weight")
        stored |= {f"{stem}.{suffix}": array for suffix, array in arrays.items()}
    folder = gemma4.write(tmp_path / "model", gemma4.EXPERTS, whole)
    quantized_folders.save(folder / "model.safetensors", stored)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    found = open_folder(folder, "m", "m")
    seen = 0
    with Reader() as reader:
        for tensor in found.tensors.values():
            if tensor.place.role is not Role.EXPERTS:
                continue
            rows = np.zeros((tensor.rows, tensor.columns), np.float32)
            for piece in names.slices(tensor.name, tensor.shape, per_expert=True):
                at = 0
                for first, count in piece.runs:
                    rows[first : first + count] = expected[piece.name][at : at + count]
                    at += count
                seen += 1
            assert np.array_equal(weights(tensor, 0, tensor.rows, reader), rows)
            assert np.array_equal(weights(tensor, 90, 120, reader), rows[90:210])
            longer = padded(replace(tensor, shape=rows.shape), tensor.rows + 5)
            assert np.array_equal(weights(longer, tensor.rows - 2, 7, reader), np.pad(rows[-2:], ((0, 5), (0, 0))))
    assert seen == len(expected)
