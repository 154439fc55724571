"""Replaced weights: the rest of the model stays, and trained codes survive every converter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import oracles
from gemmaq.checkpoint.rows import read_rows, values_of, weights
from gemmaq.files.span import Reader
from gemmaq.models.gemma3 import names
from gemmaq.qat.export import spilled
from gemmaq.sources.open import open_source
from inprocess import run
from runtimes import Require
from small import Trained, codes, in_process

pytest.importorskip("torch")
pytestmark = pytest.mark.slow


def test_replaced_tensors_keep_their_place_in_the_model(source: Path, tmp_path: Path) -> None:
    before = open_source(str(source))
    name, tensor = next(item for item in before.layer(1).items() if item[1].place.role.is_layer_matrix)
    values = np.arange(tensor.elements, dtype=np.float32).reshape(tensor.shape) % 7
    after = spilled(before, [(tensor.name, values)], tmp_path / "weights.bf16")
    assert {part: t.place for part, t in after.layer(1).items()} == {p: t.place for p, t in before.layer(1).items()}
    assert list(after.tensors) == list(before.tensors)
    with Reader() as reader:
        replaced = after.layer(1)[name]
        assert np.array_equal(weights(replaced, 0, replaced.rows, reader), values.reshape(replaced.rows, -1))


def test_every_converter_finds_the_trained_codes(trained: Trained, tmp_path: Path) -> None:
    for method in ("nearest", "auto"):
        run("convert", trained.folder, "--method", method, "--to", "gguf", "-o", tmp_path / method)
    run("convert", trained.folder, "--to", "safetensors", "-o", tmp_path / "int4")
    by_rule = codes(next((tmp_path / "nearest").glob("*.gguf")))
    by_grid = codes(next((tmp_path / "auto").glob("*.gguf")))
    packed = open_source(str(tmp_path / "int4")).tensors
    stored = open_source(str(trained.folder)).tensors
    with Reader() as reader:
        for name, (chosen, scales) in by_rule.items():
            lattice = np.repeat(scales, 32, axis=1) * (chosen.astype(np.float32) - 8)
            in_file = weights(stored[name], 0, stored[name].rows, reader)
            assert np.abs(lattice - in_file).max() <= np.abs(in_file).max() * 2**-8
            assert np.array_equal(chosen, by_grid[name][0]) and np.array_equal(scales, by_grid[name][1])
            ours = values_of(packed[name], read_rows(packed[name], 0, packed[name].rows, reader, bytearray()))
            assert np.array_equal(chosen, ours.codes) and np.array_equal(scales, ours.scales)


@pytest.mark.oracle
def test_llama_quantize_finds_the_trained_codes(trained: Trained, tmp_path: Path, require: Require) -> None:
    oracles.need_ggml(require)
    run("convert", trained.folder, "--quant", "bf16", "-o", tmp_path / "bf16")
    run("convert", trained.folder, "-o", tmp_path / "ours")
    oracles.llama_quantize(next((tmp_path / "bf16").glob("*.gguf")), tmp_path / "theirs.gguf", "q4_0")
    ours, theirs = codes(next((tmp_path / "ours").glob("*.gguf"))), codes(tmp_path / "theirs.gguf")
    for name, (chosen, scales) in ours.items():
        assert np.array_equal(chosen, theirs[name][0]) and np.array_equal(scales, theirs[name][1])


def test_channels_are_recognised_and_kept(source: Path, text: Path, tmp_path: Path) -> None:
    in_process(source, text, tmp_path / "channel", "--grid", "int4-channel")
    report = json.loads(run("convert", tmp_path / "channel", "--json", "-o", tmp_path / "gguf").stdout)
    assert {entry["rule"] for entry in report["grid"] if entry["on_grid"]} == {"per channel"}
    assert report["artifacts"][0]["outcomes"]["lattice"] == 14
    converted = open_source(str(next((tmp_path / "gguf").glob("*.gguf")))).tensors
    stored = open_source(str(tmp_path / "channel")).tensors
    with Reader() as reader:
        for name, tensor in stored.items():
            if len(tensor.shape) == 2 and name != names.EMBEDDING:
                one, two = (weights(t[name], 0, tensor.rows, reader) for t in (stored, converted))
                assert np.abs(one - two).max() <= np.abs(one).max() * 2**-8
