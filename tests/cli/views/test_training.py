"""Progress of training steps: no figures before they are known."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from gemmaq.cli.views.training import step
from gemmaq.progress import Progress
from gemmaq.qat.job import StepMetrics


def test_the_first_step_shows_neither_rate_nor_time_left() -> None:
    assert step(StepMetrics(1, None, 0.5, None, None)) == Progress("training", 1, None, note="loss 0.5000")


def test_later_steps_show_both() -> None:
    progress = step(StepMetrics(3, 20, 0.25, 1200.0, 3725.0))
    assert progress == Progress("training", 3, 20, note="loss 0.2500  1,200 tokens/s  1:02:05 left")
