"""LM Studio: parallel requests share one context."""

from __future__ import annotations

import pytest

from gemmaq.models.families import sizes
from gemmaq.models.size import Size
from memory import K, at, parts


@pytest.mark.parametrize("size", sizes(), ids=lambda size: size.label)
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_requests_share_one_context(size: Size, kind: str) -> None:
    options = {"parallel": 3, "kv_types": (kind, kind)}
    assert parts(at(size.name, 6 * K, "lmstudio", **options)) == parts(at(size.name, 6 * K, **options))
