"""What a measurement will take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibrating import CONTEXT
from gemmaq.calibration.resources import Resources
from gemmaq.calibration.sensitivity import Parts
from gemmaq.calibration.sensitivity_forecast import forecast
from gemmaq.calibration.sensitivity_groups import Settings
from gemmaq.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("torch_and_transformers")


def test_passes_tokens_and_time_are_told(checkpoint: Checkpoint, tokens: np.ndarray) -> None:
    text, settings = Parts(tokens[:2], tokens[2:]), Settings(coarse=False)
    found = forecast(checkpoint, text, settings, resources=Resources("cpu", 1), types=["q4_0"])
    assert found.groups == 15
    assert found.passes == 2 * (2 + 7 * 2 + 7 * 1)
    assert (found.tokens, found.calibrating) == (2 * (CONTEXT - CONTEXT // 8), 3 * CONTEXT)
    assert found.seconds is not None and found.seconds > 0
    assert found.memory > 4 * max(t.elements for t in checkpoint.matrices.values())
    assert found.disk > 0


def test_a_rate_needs_the_weights(checkpoint: Checkpoint, tokens: np.ndarray) -> None:
    away = replace(checkpoint, weights_here=False)
    assert forecast(away, Parts(tokens, tokens), Settings(), resources=Resources("cpu", 1)).seconds is None
