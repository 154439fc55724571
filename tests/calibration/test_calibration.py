"""Memory that calibration takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from damage import SMALL
from gemmaq.calibration import memory, traffic
from gemmaq.models.families import require_size


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


def test_processes_send_more_to_go_on_later():
    """All activations, hidden states and shared keys and values, but those of the main process, after every layer."""
    assert traffic(SMALL, 1000, 1) == traffic(SMALL, 1000, 1, resume=True) == 0
    more = traffic(SMALL, 1000, 4, resume=True) - traffic(SMALL, 1000, 4)
    assert more == 4 * 1000 * SMALL.hidden_size * SMALL.num_hidden_layers * 3 // 4


def test_inputs_of_layers_count():
    """A layer of E4B has two sites more: 1.8 GB of what two processes send in all."""
    config = require_size("gemma-4-e4b").config
    assert traffic(config, 1000, 2) == pytest.approx(33.9e9, rel=0.001)
