"""Models as their cards describe them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gemmaq.artifact import description, provenance
from gemmaq.sources.open import open_source


def test_a_record_describes_the_model_as_its_files_do(made: dict[str, Path]) -> None:
    for kind in ("gguf", "mlx", "mmproj", "affine"):
        folder = made[kind]
        (record,) = provenance.read(folder)
        usual = description.of_checkpoint(open_source(str(folder)), folder, name=record.name, repo=record.repo)
        other = replace(usual, body="f32", kinds={}, weights=1, parameters=2, embedding=3, layer_table=4, towers=5)
        assert description.of_size(record.entry["size"], other, usual.files) == usual
        assert description.size(usual) == record.entry["size"]
