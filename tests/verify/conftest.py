"""Small artifacts of every kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifact_fixtures import made, other, seeing, source, sources
from damage import small_model
from gemmaq.sources.open import open_source
from gemmaq.verify import engines, running
from inprocess import run
from synthetic import TINY

__all__ = ["made", "other", "seeing", "source", "sources"]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model whose tokens are bytes, as `source` and in a folder for each container; not to be changed."""
    root = tmp_path_factory.mktemp("runs")
    source = small_model(root / "gemma-3-small", TINY)
    run("convert", source, "--to", "gguf,mlx,safetensors", "--quant", "q4_0", "--portable", "-q", "-o", root / "out")
    return {"source": source, **{path.name: path for path in (root / "out").iterdir()}}


@pytest.fixture
def judged() -> Callable[..., running.Outcome]:
    """How a runtime runs an artifact, 8 tokens by default; options are those of `running.run` and `Wish`."""

    def judge(path: Path, runtime: str, source: Path | None = None, **wish: Any) -> running.Outcome:
        from gemmaq.inference.device import open_device

        model = open_source(str(path))
        with open_device("cpu", 1) as device:
            return running.run(
                model,
                engines.choose(model, runtime),
                running.Wish(**{"tokens": 8, **wish}),
                device=device,
                progress=lambda _: None,
                source=None if source is None else open_source(str(source)),
            )

    return judge
