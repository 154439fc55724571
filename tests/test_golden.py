"""Digests of a tiny model's artifacts, in every container and by every method: their bytes must not change."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from inprocess import run

NOT_WEIGHTS = ("gemmaq.json", "README.md", "SHA256SUMS")
"""Files that tell the version and show words, which may change."""

GOLDEN = {
    "--to gguf --to mlx --to safetensors": "50c0605f27b2b22b160715c3c587c80f05af01d4dbc3a5a6613e48346270abe0",
    "--method lattice --to gguf --to mlx --to safetensors": "a13fdab5b25d8a4dd16ec56037b7d8b2ab462f1c45ab97d2084227bcafd8661e",  # noqa: E501
    "--quant q8_0 --embedding q4_0": "819ce0815b6e2de334bac0781342bb058691796a0baceefcf9b692e9549d6e9f",
    "--quant q4_1 --portable": "ad2792a29a73f80472b146a5be47a1e4fece3f0b809a1e50a289f5a1ae22911f",
    "--quant q5_0": "ea66d263f8715d869bb0608c79b03ff2194bceba501ce8eb70b2f4a8ac5e4eec",
    "--quant q5_1": "fa1b93aac472bce434d6a59570fc0e8b75d6f96d2f836b15e356cbe506076a73",
    "--quant f16 --to safetensors": "eeadc5202006710bc5f22ec5c57575d1a00b801273aae52ab4a529f79e93e3c4",
    "--quant f32": "ce939fe5d15d6dfb23b16b78261f9690030996753950cf1ce2d499194cb61be9",
    "--quant affine4 --to mlx": "9c75a60a87559b6167a48accf618d2f820fdf13f546ebde4f744d04fc52f93e0",
    "--quant affine8 --to mlx --scales f16": "dcaeeaede13462605a978d82a49e785182cdf5ee84d1e27c5891c9295f9ffc6e",
    "--quant q4_0 --max-shard-size 100k": "5ad5fa5805ef827b278388a41fd9b05fcbe621355275b0ba7cbe6ea626e14f1c",
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


@pytest.mark.parametrize("options", GOLDEN)
def test_the_bytes_are_those_on_record(options: str, tiny: Path, tmp_path: Path) -> None:
    run("convert", tiny, *options.split(), "-o", tmp_path / "out", "-q")
    assert digest(tmp_path / "out") == GOLDEN[options]
