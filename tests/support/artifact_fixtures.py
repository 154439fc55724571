"""Small artifacts of every kind, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

import artifacts
from damage import small_model
from inprocess import run
from kinds import KINDS


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two layers."""
    return small_model(tmp_path_factory.mktemp("source") / "gemma-3-tiny")


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with other weights."""
    return small_model(tmp_path_factory.mktemp("other") / "gemma-3-tiny", seed=1)


@pytest.fixture(scope="session")
def seeing(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a vision side, of a name that says QAT."""
    return artifacts.sources(tiny, tmp_path_factory.mktemp("seeing")).seeing


@pytest.fixture(scope="session")
def sources(source: Path, seeing: Path) -> dict[str, Path]:
    """What each kind is made of."""
    return {kind: seeing if "seeing" in kind or kind == "mmproj" else source for kind in KINDS}


@pytest.fixture(scope="session")
def made(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The artifacts; not to be changed."""
    root = tmp_path_factory.mktemp("made")
    for kind, options in KINDS.items():
        run("convert", sources[kind], "-q", *options, "-o", root / kind)
    return {kind: root / kind for kind in KINDS}
