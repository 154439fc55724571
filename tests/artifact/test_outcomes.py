"""Outcomes of tensors: how their codes came about, and how many scales a container had to round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from damage import small_model
from gemmaq import containers
from gemmaq.artifact.outcomes import OutcomeCounter
from gemmaq.encodings import ENCODINGS, Quantized
from gemmaq.methods import Choice
from gemmaq.planning.plan import Plan, PlannedTensor
from gemmaq.planning.planner import make_plan
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request
from gemmaq.sources.open import open_source


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    checkpoint = open_source(str(small_model(tmp_path_factory.mktemp("model") / "gemma-3-small")))
    return make_plan(checkpoint, Request(of("q4_0"), ("mlx",)), containers.writer("mlx").FORMAT)


@pytest.fixture
def matrix(plan: Plan) -> PlannedTensor:
    return next(tensor for tensor in plan.tensors if tensor.source.place.role.is_layer_matrix)


def values(*scales: float) -> Quantized:
    return Quantized(np.zeros((1, 32 * len(scales)), np.uint8), np.array([scales], np.float32))


def quantized_source(tensor: PlannedTensor, encoding: str) -> PlannedTensor:
    return replace(tensor, source=replace(tensor.source, encoding=ENCODINGS[encoding]))


def test_how_codes_came_about(matrix: PlannedTensor) -> None:
    counter = OutcomeCounter()

    def how(tensor: PlannedTensor) -> str:
        return counter.outcome("mlx", tensor).how

    assert how(matrix) == "quantized" and counter.outcome("mlx", matrix).is_chosen
    assert how(replace(matrix, choice=Choice("lattice"))) == "lattice"
    assert how(quantized_source(matrix, "q8_0")) == "requantized"
    assert how(quantized_source(matrix, "q4_0")) == "exact"
    assert how(replace(matrix, encoding=ENCODINGS["f16"])) == "float"
    assert not counter.outcome("mlx", quantized_source(matrix, "q4_0")).is_chosen


def test_scales_that_bf16_does_not_hold_are_counted_by_container_and_tensor(matrix: PlannedTensor) -> None:
    counter, kept = OutcomeCounter(), quantized_source(matrix, "q4_0")
    counter.count("mlx", kept, values(1.0, 1.0 + 2**-10))
    counter.count("mlx", kept, values(1.0 + 2**-10, 2.0))
    counter.count("safetensors", kept, values(1.0))
    assert (counter.outcome("mlx", kept).scales, counter.outcome("mlx", kept).rounded) == (4, 2)
    assert counter.outcome("mlx", kept).how == "rounded"
    assert (counter.outcome("safetensors", kept).scales, counter.outcome("safetensors", kept).rounded) == (1, 0)
    assert counter.outcome("safetensors", kept).how == "exact"


def test_chosen_scales_are_not_counted(matrix: PlannedTensor) -> None:
    counter = OutcomeCounter()
    counter.count("mlx", matrix, values(1.0 + 2**-10))
    counter.count("mlx", matrix, np.ones((1, 32), np.float32))
    assert counter.outcome("mlx", matrix).scales == 0


def test_a_plan_has_an_outcome_for_every_tensor(plan: Plan) -> None:
    assert [outcome.name for outcome in OutcomeCounter().outcomes(plan)] == [tensor.name for tensor in plan.tensors]
