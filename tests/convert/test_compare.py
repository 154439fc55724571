"""Tensors compared: errors of weights, and whether codes and bytes are as planned."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from damage import small_model
from gemmaq.checkpoint import Checkpoint
from gemmaq.convert.compare import Compared, Pair, by_kind, compare, relative
from gemmaq.convert.layout import make_plans
from gemmaq.encodings import ENCODINGS
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.progress import Progress, ignore
from gemmaq.sources.open import open_source

NAME = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    """Two models of the same shape and other weights."""
    folder = tmp_path_factory.mktemp("models")
    return [open_source(str(small_model(folder / str(seed) / "gemma-3-small", seed=seed))) for seed in (0, 1)]


def test_a_model_is_no_distance_from_itself(models: list[Checkpoint]) -> None:
    first = models[0]
    reports: list[Progress] = []
    pairs = [Pair(name, tensor, tensor) for name, tensor in first.tensors.items()]
    compared = compare(pairs, threads=3, progress=reports.append)
    assert [tensor.name for tensor in compared] == list(first.tensors)
    assert all(tensor.error == 0 and tensor.differing is tensor.equal is None for tensor in compared)
    assert reports[-1].done == reports[-1].total == sum(tensor.nbytes for tensor in first.tensors.values())


def test_the_order_is_that_of_the_pairs_whatever_the_threads(
    models: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemmaq.convert.compare.SLAB_ELEMENTS", 256)
    pairs = [Pair(name, tensor, models[1].tensors[name]) for name, tensor in models[0].tensors.items()]
    results = [compare(pairs, threads=threads, progress=ignore) for threads in (1, 4)]
    assert results[0] == results[1]
    assert all(tensor.error > 1 for tensor in results[0] if tensor.kind == "down")


def test_bytes_are_compared_with_the_plan(models: list[Checkpoint]) -> None:
    """Weights that are stored as planned, and those of another model in their place."""
    request = Request(of("bf16"), ("safetensors",))
    (plan,) = make_plans(models[0], request, {})
    planned = next(tensor for tensor in plan.tensors if tensor.source.name == NAME)
    from gemmaq.containers import writer

    for model, equal in zip(models, (True, False), strict=True):
        (compared,) = compare(
            [Pair(NAME, planned.source, model.tensors[NAME], planned, writer("safetensors"))],
            threads=1,
            progress=ignore,
        )
        assert compared.equal is equal and bool(compared.differing) is not equal


def test_relative_errors() -> None:
    assert relative(0.0, 0.0) == 0.0 and relative(1.0, 0.0) == math.inf and relative(1.0, 4.0) == 0.5


def test_kinds_are_in_the_order_of_a_table() -> None:
    one = Compared("a", "down", 0, ENCODINGS["q4_0"].name, 1, 0.0, 1.0)
    groups = by_kind([replace(one, kind="norm"), one, replace(one, name="b")])
    assert {kind: len(tensors) for kind, tensors in groups.items()} == {"down": 2, "norm": 1}
    assert list(groups) == ["down", "norm"]


def test_kinds_that_no_family_has_come_last() -> None:
    one = Compared("a", "drafter", 0, ENCODINGS["q4_0"].name, 1, 0.0, 1.0)
    assert list(by_kind([one, replace(one, kind="audio"), replace(one, kind="down")])) == ["down", "audio", "drafter"]
