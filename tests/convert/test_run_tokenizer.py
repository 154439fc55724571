"""A tokenizer that verify would refuse is refused before any weight is read, whatever the container."""

from __future__ import annotations

from pathlib import Path

import pytest

from damage import small_model
from inprocess import refused

FOLDERS = ["mlx", "safetensors"]


def never(*arguments: object) -> None:
    raise AssertionError("weights are read")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return small_model(tmp_path / "gemma-3-tiny")


@pytest.mark.parametrize(
    ("name", "content", "containers"),
    [
        ("tokenizer.model", b"", ["gguf", *FOLDERS]),
        ("tokenizer.model", b"\xff" * 40, ["gguf", *FOLDERS]),
        ("tokenizer_config.json", b"{", ["gguf", *FOLDERS]),
        ("tokenizer_config.json", b"\xff", ["gguf", *FOLDERS]),
        ("tokenizer.json", b"{", FOLDERS),
        ("special_tokens_map.json", b"[]", FOLDERS),
        ("chat_template.jinja", b"\xff", ["gguf", *FOLDERS]),
    ],
)
def test_a_broken_file_is_refused_at_once(
    source: Path, tmp_path: Path, name: str, content: bytes, containers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"0": {"content": "<pad>"}}}')
    (source / name).write_bytes(content)
    monkeypatch.setattr("gemmaq.convert.run.fits_for", never)  # the first to read weights
    for container in containers:
        quant = ["--quant", "bf16"] if container == "safetensors" else []
        words = ("convert", source, "-o", tmp_path / "out", "--to", container, *quant)
        refused(3, (name,), *words, under=tmp_path)
