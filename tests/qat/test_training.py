"""Training through the command line: it lowers the divergence, and its codes survive every converter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oracles
from gemmaq.checkpoint.rows import read_rows, values_of, weights
from gemmaq.files.span import Reader
from gemmaq.models.gemma3 import names
from gemmaq.sources.open import open_source
from inprocess import run
from runtimes import Require
from small import Trained, record_of, words

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")


def codes(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Codes and scales of the matrices of the layers in a GGUF file."""
    found = {}
    with Reader() as reader:
        for name, tensor in open_source(str(path)).tensors.items():
            if len(tensor.shape) == 2 and name != names.EMBEDDING:
                values = values_of(tensor, read_rows(tensor, 0, tensor.rows, reader, bytearray()))
                found[name] = values.codes, values.scales
    return found


def test_training_lowers_the_divergence(trained: Trained) -> None:
    record = trained.record
    before, after = record["evaluation"]["before"], record["evaluation"]["after"]
    assert after["kl"] < 0.85 * before["kl"]
    assert len(record["losses"]) == record["settings"]["steps"] == 20
    assert np.mean(record["losses"][-5:]) < 0.85 * np.mean(record["losses"][:3])
    assert record["text"]["files"] == ["topics.txt"]
    assert record["source"]["name"] == "gemma-3-small"
    assert (trained.folder / "loss.svg").read_text().lstrip().startswith("<?xml")
    assert str(trained.folder.parent) not in (trained.folder / "qat.json").read_text()
    assert not trained.folder.with_name(trained.folder.name + ".work").exists()
    run("verify", trained.folder)


def test_only_what_is_to_be_trained_has_changed(trained: Trained, source: Path) -> None:
    mine, other = open_source(str(trained.folder)), open_source(str(source))
    with Reader() as reader:
        for name, tensor in other.tensors.items():
            one = weights(mine.tensors[name], 0, min(tensor.rows, 64), reader)
            two = weights(tensor, 0, min(tensor.rows, 64), reader)
            assert np.array_equal(one, two) == (name == names.EMBEDDING), name


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


def in_process(source: Path, text: Path, out: Path, *more: object) -> dict[str, Any]:
    run(*words(source, text, out, "--steps", 6, *more), "--json")
    return record_of(out)


@pytest.mark.parametrize(
    "options",
    [
        ["--teacher-samples", 64, "--vocabulary", 2048],
        ["--activations", "int8", "--vocabulary", 0, "--batch", 1, "--accumulate", 2],
        ["--train-embedding", "--checkpoint-activations", "--dtype", "bf16"],
        ["--grid", "int4-channel"],
    ],
)
def test_other_ways_to_train_lower_it_too(source: Path, text: Path, tmp_path: Path, options: list[object]) -> None:
    record = in_process(source, text, tmp_path / "out", "--steps", 20, *options)
    evaluation = record["evaluation"]
    assert evaluation["after"]["kl"] < evaluation["before"]["kl"]


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


def test_recomputing_and_accumulating_change_nothing(source: Path, text: Path, tmp_path: Path) -> None:
    plain = in_process(source, text, tmp_path / "plain")["losses"]
    again = in_process(source, text, tmp_path / "again", "--checkpoint-activations")["losses"]
    parts = in_process(source, text, tmp_path / "parts", "--batch", 1, "--accumulate", 2)["losses"]
    assert plain == again
    assert parts == pytest.approx(plain, abs=1e-6)


def test_the_start_may_be_another_folder(trained: Trained, source: Path, text: Path, tmp_path: Path) -> None:
    record = in_process(source, text, tmp_path / "out", "--start", trained.folder, "--train-norms")
    ends = trained.record["evaluation"]["after"]["kl"]
    assert record["evaluation"]["before"]["kl"] == pytest.approx(ends, rel=0.02)
    assert record["start"]["name"] == trained.folder.name


def test_a_start_on_a_grid_keeps_its_scales(source: Path, text: Path, tmp_path: Path) -> None:
    """From GPTQ: what is measured before the first step is the GPTQ model, and converting keeps the trained codes."""
    run("convert", source, "--method", "gptq", "--portable", "--text", text, "-o", tmp_path / "gptq")
    start = next((tmp_path / "gptq").glob("*.gguf"))
    record = in_process(source, text, tmp_path / "out", "--start", start, "--steps", 20)
    assert record["evaluation"]["after"]["kl"] < record["evaluation"]["before"]["kl"]
    run("convert", tmp_path / "out", "-o", tmp_path / "gguf")
    before, after = codes(start), codes(next((tmp_path / "gguf").glob("*.gguf")))
    stored = open_source(str(tmp_path / "out")).tensors
    moved = []
    with Reader() as reader:
        for name, (chosen, scales) in after.items():
            assert np.isclose(np.abs(scales), np.abs(before[name][1]), rtol=2**-8).mean() > 0.995
            lattice = torch.from_numpy(np.repeat(scales, 32, axis=1) * (chosen.astype(np.float32) - 8))
            in_file = torch.from_numpy(weights(stored[name], 0, stored[name].rows, reader))
            assert torch.equal(lattice.bfloat16().float(), in_file)
            moved.append(float((before[name][0] != chosen).mean()))
    assert 0 < max(moved) < 0.5


def test_a_dry_run_says_what_would_be_done(source: Path, text: Path, tmp_path: Path) -> None:
    found = json.loads(run(*words(source, text, tmp_path / "out", "--dry-run"), "--json").stdout)
    assert found["trained"] == 2 * 30720
    assert (found["steps"], found["tokens_per_step"]) == (20, 128)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()
    assert "block" not in run(*words(source, text, tmp_path / "out", "--dry-run")).stdout


def test_rates_rise_and_fall() -> None:
    from gemmaq.qat.settings import Settings

    settings = Settings(learning_rate=1.0)
    rates = [settings.rate(step, 100) for step in range(100)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0 and rates[-1] == 0.05
    assert sorted(rates[4:], reverse=True) == rates[4:]
