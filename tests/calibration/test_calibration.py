"""Memory that calibration takes."""

from __future__ import annotations

from dataclasses import replace

from damage import SMALL
from gemmaq.calibration import memory


def test_memory_grows_with_the_model_and_the_tokens():
    tiny = memory(SMALL, 1000)
    assert memory(SMALL, 2000) - tiny >= 2 * 1000 * 4 * SMALL.hidden_size
    assert memory(replace(SMALL, num_hidden_layers=99), 1000) == tiny
    assert memory(replace(SMALL, intermediate_size=960), 1000) > tiny + 3 * 4 * (960**2 - 96**2)


def test_each_of_several_processes_holds_its_part_of_the_tokens():
    alone = memory(SMALL, 80_000)
    assert memory(SMALL, 80_000, 32) < alone < memory(SMALL, 80_000, 2), "inputs of a layer are kept until sums pass"
    inputs = 4 * 40_000 * (2 * SMALL.hidden_size + SMALL.intermediate_size)
    assert memory(SMALL, 80_000, 2) > memory(SMALL, 2048, 2) + inputs
