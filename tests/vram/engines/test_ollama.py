"""Ollama: the context times the requests, each with its share."""

from __future__ import annotations

import pytest

from gemmaq.models.families import sizes
from gemmaq.models.size import Size
from memory import K, at, parts


@pytest.mark.parametrize("size", sizes(), ids=lambda size: size.label)
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_every_request_has_a_context_of_its_own(size: Size, kind: str) -> None:
    options = {"parallel": 3, "kv_types": (kind, kind)}
    assert parts(at(size.name, 2 * K, "ollama", **options)) == parts(at(size.name, 6 * K, **options, unified=False))
    one = at(size.name, 2 * K, "ollama")
    assert at(size.name, 2 * K, "ollama", parallel=3).kv == 3 * one.kv
