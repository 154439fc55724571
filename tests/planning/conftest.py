"""Plans of a small model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from damage import small_model
from gemmaq import containers
from gemmaq.checkpoint import Checkpoint
from gemmaq.methods.lattice import GridFit
from gemmaq.planning.plan import Plan
from gemmaq.planning.planner import make_plan
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.sources.open import open_source

Planner = Callable[..., Plan]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model of two layers, 28 tensors, in BF16."""
    return open_source(str(small_model(tmp_path_factory.mktemp("plans") / "gemma-3-small")))


@pytest.fixture
def plan(checkpoint: Checkpoint) -> Planner:
    """Plan the model for a container; `source` replaces the checkpoint."""

    def planned(
        quant: str,
        container: str = "gguf",
        *,
        method: str = "auto",
        embedding: str | None = "q8_0",
        fits: Mapping[str, GridFit] | None = None,
        shared: bool = False,
        source: Checkpoint = checkpoint,
        **options: object,
    ) -> Plan:
        request = Request(of(quant, embedding=embedding, method=method), (container,), **options)  # type: ignore[arg-type]
        return make_plan(source, request, containers.writer(container).FORMAT, fits=fits, shared=shared)

    return planned
