"""A small model, where commands write to, and a fake Hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from damage import small_model
from hub_fixtures import here, hub, python, settle
from inprocess import run

__all__ = ["here", "hub", "python", "settle"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to convert to; its parent is there and empty."""
    (tmp_path / "results").mkdir()
    return tmp_path / "results/out"


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two layers; not to be changed."""
    return small_model(tmp_path_factory.mktemp("small") / "gemma-3-small")


@pytest.fixture(scope="session")
def small_gguf(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF artifact of it in Q4_0; not to be changed."""
    folder = tmp_path_factory.mktemp("small") / "out"
    run("convert", small, "--quant", "q4_0", "-q", "-o", folder)
    return folder
