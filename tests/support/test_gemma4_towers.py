"""The tiny models with towers are no degenerate ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4_towers
import gemma4_transformers
from runtimes import Require, need


@pytest.mark.oracle
def test_every_bound_of_a_clipped_matrix_cuts_off_some_numbers(require: Require, tmp_path: Path) -> None:
    need(require, "torch", "transformers")
    model = gemma4_transformers.load(gemma4_towers.write(tmp_path, gemma4_towers.KINDS["effective"]))
    bounds = {name: float(value) for name, value in model.named_buffers() if name.endswith(("_min", "_max"))}
    of_matrix = set(zip(*[iter(bounds.values())] * 4, strict=True))
    assert len(of_matrix) == len(bounds) / 4 and np.isfinite(list(bounds.values())).all()
    reached: dict[str, bool] = {}

    def watch(name: str, module: Any) -> None:
        def look(_: Any, inputs: Any, output: Any) -> None:
            for side, values in (("input", inputs[0]), ("output", output)):
                least, most = bounds[f"{name}.{side}_min"], bounds[f"{name}.{side}_max"]
                reached[f"{name}.{side}"] = bool((values <= least).any() and (values >= most).any())

        module.linear.register_forward_hook(look)

    for name, module in model.named_modules():
        if hasattr(module, "input_min"):
            watch(name, module)
    gemma4_transformers.see(model, gemma4_towers.picture())
    gemma4_transformers.hear(model, gemma4_transformers.features(tmp_path, gemma4_towers.sound()))
    assert len(reached) == len(bounds) / 2 and all(reached.values()), reached
