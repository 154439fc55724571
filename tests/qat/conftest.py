"""A small source, a text, and one training that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from small import Trained, call, record_of, words, write_model


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("qat") / "gemma-3-small")


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few thousand tokens of the language's own documentation."""
    from pydoc_data.topics import topics

    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text("\n\n".join(topics[name] for name in sorted(topics))[:24_000])
    return path


@pytest.fixture(scope="session")
def trained(source: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Twenty steps without a break."""
    folder = tmp_path_factory.mktemp("trained") / "gemma-3-small-qat"
    done = call(words(source, text, folder, "--train-norms"))
    assert done.returncode == 0, done.stderr
    return Trained(folder, record_of(folder))
