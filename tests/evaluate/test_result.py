"""Models as the report names them: short labels, sizes, distances of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gemmaq.checkpoint import Checkpoint
from gemmaq.evaluate.result import described, distances, number
from gemmaq.progress import ignore


@pytest.mark.parametrize(
    ("sources", "labels"),
    [
        (["a/model", "b/other"], ["model", "other"]),
        (["a/model", "b/model"], ["a/model", "b/model"]),
        (["x/a/model", "y/a/model", "z"], ["x/a/model", "y/a/model", "z"]),
        (["a/m-Q4_0.gguf", "a/m-Q8_0.gguf"], ["m-Q4_0", "m-Q8_0"]),
        (["a/m.gguf", "a/m"], ["m.gguf", "m"]),
    ],
)
def test_labels_tell_models_apart(pair: list[Checkpoint], sources: list[str], labels: list[str]) -> None:
    scores: Any = [None] * len(sources)
    models = described(sources, [pair[0]] * len(sources), scores)
    assert [model.label for model in models] == labels
    assert [model.is_reference for model in models] == [True] + [False] * (len(sources) - 1)


def test_sizes(pair: list[Checkpoint]) -> None:
    score: Any = None
    [model] = described(["a"], pair[:1], [score])
    assert model.bits_per_weight == 16
    assert model.bytes == sum(path.stat().st_size for path in Path(pair[0].location).glob("*.safetensors"))


@pytest.mark.parametrize(("value", "shown"), [(0.25, "0.2500"), (0.00123, "0.0012"), (0.000234, "0.00023"), (0, "0")])
def test_numbers(value: float, shown: str) -> None:
    assert number(value) == shown


def test_distances_are_those_of_each_model(pair: list[Checkpoint]) -> None:
    same, other = distances(pair[0], pair, 2, ignore)
    assert [c.name for c in same] == [c.name for c in other] == list(pair[0].tensors)
    assert all(c.square_error == 0 for c in same)
    assert all(c.square_error > 0 for c in other)
