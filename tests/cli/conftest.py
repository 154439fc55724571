"""Where commands write to."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to convert to; its parent is there and empty."""
    (tmp_path / "results").mkdir()
    return tmp_path / "results/out"
