"""MLX folders of Gemma 3n in mlx-lm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma3n
from gemmaq.files import safetensors_header
from gemmaq.files.span import FileSpan
from gemmaq.models.gemma3n import names
from oracles import need


@pytest.fixture(scope="module")
def made(gemmaq: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gemma3n")
    gemmaq("convert", gemma3n.write(root / "gemma-3n-tiny"), "--quant", "q4_0", "--to", "mlx", "-o", root / "mlx")
    return root / "mlx"


def test_names_are_those_of_a_model_with_towers_and_no_tensor_is_missing(made: Path) -> None:
    entries = {entry.name for entry in safetensors_header.parse(FileSpan.of(made / "model.safetensors"))}
    wanted = [name for name, _ in names.shapes(gemma3n.CONFIG) if "altup_" not in name] + list(
        names.idle(gemma3n.CONFIG)
    )
    assert {names.nested(name) for name in wanted} <= entries
    assert "model.language_model.altup_projections.2.weight" in entries
    text = json.loads((made / "config.json").read_text())["text_config"]
    assert (text["rope_theta"], text["rope_local_base_freq"], text["num_kv_shared_layers"]) == (1e6, 1e4, 5)


@pytest.mark.slow
@pytest.mark.oracle
def test_mlx_lm_loads_it_and_computes(require: Callable[[bool, str], None], made: Path) -> None:
    need(require, "mlx_lm", "mlx")
    import mlx.core as mx
    from mlx_lm.utils import load_model

    model, _ = load_model(made)
    logits = np.array(model(mx.array([[2, 300, 310]])).astype(mx.float32))
    assert logits.shape == (1, 3, 400) and np.isfinite(logits).all() and np.ptp(logits) > 0
