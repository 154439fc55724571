"""Rows as they will be written are those that an artifact holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemmaq.checkpoint import Checkpoint, spans_of
from gemmaq.checkpoint import rows as stored
from gemmaq.convert.run import Conversion, Options, run
from gemmaq.files.span import Reader
from gemmaq.planning import written
from gemmaq.planning.plan import Plan
from gemmaq.sources.open import open_source


@pytest.mark.parametrize(
    ("quant", "container"),
    [*((name, "gguf") for name in ("q4_0", "q4_k_m", "iq4_nl", "f16")), ("q4_0", "mlx"), ("q4_0", "safetensors")],
)
def test_weights_are_those_that_the_artifact_holds(
    quant: str, container: str, plan, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    planned: Plan = plan(quant, container, embedding=None)
    run(Conversion(checkpoint, (planned.request,), tmp_path / "out"), [planned], Options(threads=2))
    found = next(iter((tmp_path / "out").glob("*.gguf")), tmp_path / "out")
    model = open_source(str(found))
    with Reader() as reader:
        reader.open(spans_of([*checkpoint.tensors.values(), *model.tensors.values()]))
        for tensor in planned.tensors:
            there = model.tensors[tensor.source.name]
            first = min(1, tensor.source.rows - 1)
            rows = written.weights(tensor, first, tensor.source.rows - first, reader)
            expected = stored.weights(there, first, len(rows), reader) + np.float32(there.shift)
            assert np.array_equal(rows, expected), tensor.name
