"""Where caches lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmaq.files import caches


def test_caches_lie_where_the_variable_or_the_platform_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEMMAQ_CACHE", str(tmp_path))
    assert caches.folder("digests") == tmp_path / "digests"
    monkeypatch.delenv("GEMMAQ_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.setattr("sys.platform", "linux")
    assert caches.folder("digests") == tmp_path / "x/gemmaq/digests"
    monkeypatch.setattr("sys.platform", "darwin")
    assert caches.folder("digests") == Path.home() / "Library/Caches/gemmaq/digests"
