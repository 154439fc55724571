"""Digests of a tiny model's artifacts, in every container and by every method: their bytes must not change."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from inprocess import run
from synthetic import TINY, write_checkpoint

NOT_WEIGHTS = ("gemmaq.json", "README.md", "SHA256SUMS")
"""Files that tell the version and show words, which may change."""

GOLDEN = {
    "--to gguf --to mlx --to safetensors": "a8a95037336108b5ebf766748ce504187ce4cce6f5f9270884f88a5f18b72001",
    "--method lattice --to gguf --to mlx --to safetensors": "a8a95037336108b5ebf766748ce504187ce4cce6f5f9270884f88a5f18b72001",  # noqa: E501
    "--quant q8_0 --embedding q4_0": "893ceb83003805ddbef2f91c79209bd7e2705130fd45d35176fe3f14d1fdad7c",
    "--quant q4_1 --portable": "57b874f8351876c18922ecf4a92192b40732ce5d883f3edc0ce26f3c1d18e10c",
    "--quant q5_0": "8db0ca597cc0ae06fbc083701dbf8ab6d7dd93ca23d15fbeceaf607c52428ba6",
    "--quant q5_1": "73ce6432ca113d9cdbe21a4b4f3f964be930fb747866d0e4c15351b924aab64e",
    "--quant f16 --to safetensors": "eeadc5202006710bc5f22ec5c57575d1a00b801273aae52ab4a529f79e93e3c4",
    "--quant f32": "ce939fe5d15d6dfb23b16b78261f9690030996753950cf1ce2d499194cb61be9",
    "--quant affine4 --to mlx": "9c75a60a87559b6167a48accf618d2f820fdf13f546ebde4f744d04fc52f93e0",
    "--quant affine8 --to mlx --scales f16": "dcaeeaede13462605a978d82a49e785182cdf5ee84d1e27c5891c9295f9ffc6e",
    "--quant q4_0 --max-shard-size 100k": "a86d5f0c4891a14e0aa501b8892bf02ea9b4922e43f65563c1c187bd263e897c",
}
"""Options of `gemmaq convert` -> SHA-256 over the names and bytes of the files it writes."""


def digest(folder: Path) -> str:
    """SHA-256 over names and bytes of the files of an artifact, or of several."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in NOT_WEIGHTS:
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, sample_bf16: Path) -> Path:
    """A tiny model with the whole tokenizer, whose files are copied."""
    folder = tmp_path_factory.mktemp("golden") / "gemma-3-tiny"
    return write_checkpoint(folder, TINY, shard_bytes=100_000, tokenizer=sample_bf16)


@pytest.mark.parametrize("options", GOLDEN)
def test_the_bytes_are_those_on_record(options: str, source: Path, tmp_path: Path) -> None:
    run("convert", source, *options.split(), "-o", tmp_path / "out", "-q")
    assert digest(tmp_path / "out") == GOLDEN[options]
