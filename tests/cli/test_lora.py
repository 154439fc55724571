"""`gemmaq convert --to gguf-lora`: options that mean nothing there are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import lora_files
from inprocess import run


@pytest.fixture
def adapter(tiny: Path, tmp_path: Path) -> Path:
    return lora_files.write(tmp_path / "a", lora_files.config(), lora_files.pair(64, 64), base=tiny)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "gguf-lora,mlx"], "written alone"),
        (["--to", "gguf-lora", "--quant", "q4_0"], "known: f32, f16, bf16"),
        (["--to", "gguf-lora", "--method", "gptq"], "--method is of no use"),
        (["--to", "gguf-lora", "--draft", "org/x"], "--draft is of no use"),
    ],
)
def test_options_without_use_are_refused(adapter: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    assert words in run("convert", adapter, *arguments, "-o", tmp_path / "out", code=2).stderr


def test_a_model_is_no_adapter(tiny: Path, tmp_path: Path) -> None:
    done = run("convert", tiny, "--to", "gguf-lora", "-o", tmp_path / "out", code=2)
    assert "is for adapters" in done.stderr


def test_the_folder_has_a_name_of_its_own(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("convert", adapter, "--to", "gguf-lora", "-q")
    assert [path.name for path in (tmp_path / done.stdout.strip()).iterdir() if path.suffix == ".gguf"] == [
        "a-F32-LoRA.gguf"
    ]
    assert "exists" in run("convert", adapter, "--to", "gguf-lora", code=7).stderr
