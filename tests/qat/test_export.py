"""Replaced weights: the checkpoint that carries them is the same model in every other respect."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gemmaq.checkpoint.rows import weights
from gemmaq.files.span import Reader
from gemmaq.qat.export import spilled
from gemmaq.sources.open import open_source


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
