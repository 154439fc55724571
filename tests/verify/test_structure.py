"""Headers of an artifact against gemmaq.json, in every container."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gemmaq.artifact import provenance
from gemmaq.verify.structure import arrays, header_problems, open_model

CONTAINERS = ("gguf", "mlx", "compressed-tensors", "bf16")


@pytest.mark.parametrize("kind", CONTAINERS)
def test_headers_are_those_on_record(kind: str, made: dict[str, Path]) -> None:
    (record,) = provenance.read(made[kind])
    assert record is not None
    stored = arrays(made[kind], record)
    assert header_problems(record, stored) == []
    name, array = next(iter(stored.items()))
    missing = {other: stored[other] for other in stored if other != name}
    assert header_problems(record, missing) == [f"tensor {name} is missing"]
    (problem,) = header_problems(record, stored | {name: replace(array, shape=(1, 2))})
    assert problem.startswith(f"tensor {name} is {array.dtype} [1, 2], gemmaq.json says {array.dtype}")
    assert header_problems(record, stored | {"more": array}) == ["tensor more is not in gemmaq.json"]


def test_a_model_that_cannot_be_opened_is_a_problem(made: dict[str, Path], tmp_path: Path) -> None:
    model, problems = open_model(made["gguf"])
    assert model is not None and problems == []
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    model, problems = open_model(tmp_path / "model.gguf")
    assert model is None and len(problems) == 1
