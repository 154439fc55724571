"""Shards: filled in order, named by number and count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gemmaq.containers.layout import shard_names, split


def sizes(tensors: list[int], limit: int | None) -> list[list[int]]:
    planned: Any = tuple(SimpleNamespace(nbytes=size) for size in tensors)
    return [[tensor.nbytes for tensor in shard] for shard in split(planned, limit)]


@pytest.mark.parametrize(
    ("tensors", "limit", "shards"),
    [
        ([3, 4, 5], None, [[3, 4, 5]]),
        ([3, 4, 5], 100, [[3, 4, 5]]),
        ([3, 4, 5], 7, [[3, 4], [5]]),
        ([3, 9, 5], 7, [[3], [9], [5]]),
        ([9, 1, 6], 7, [[9], [1, 6]]),
        ([], 7, [[]]),
    ],
)
def test_tensors_fill_shards_in_order(tensors: list[int], limit: int | None, shards: list[list[int]]) -> None:
    assert sizes(tensors, limit) == shards


def test_names_of_shards() -> None:
    assert shard_names("model", ".safetensors", 1) == ["model.safetensors"]
    assert shard_names("a{}", ".gguf", 2) == ["a{}-00001-of-00002.gguf", "a{}-00002-of-00002.gguf"]
