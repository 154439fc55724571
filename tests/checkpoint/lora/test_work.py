"""Names in an adapter mean tensors of the model."""

from __future__ import annotations

from pathlib import Path

import lora_files
from gemmaq.checkpoint.lora import config, weights
from gemmaq.checkpoint.lora.work import Work
from gemmaq.sources.open import open_source


def test_names_mean_tensors_and_a_tied_head_the_embedding(tiny: Path, tmp_path: Path) -> None:
    folder = lora_files.write(tmp_path / "a", lora_files.config(), lora_files.pair(64, 64))
    base = open_source(str(tiny))
    work = Work(base, config.read(folder / config.NAME), weights.read(folder), dict(base.tensors))
    assert work.is_tied
    assert work.found("lm_head.weight") == "model.embed_tokens.weight"
    assert work.found("model.language_model.layers.0.mlp.up_proj.weight") == "model.layers.0.mlp.up_proj.weight"
    assert work.found("model.layers.7.mlp.up_proj.weight") is None
    assert work.found("vision_tower.encoder.layers.0.self_attn.q_proj.weight") is None
    assert work.is_head("lm_head")
    assert not work.is_head("model.embed_tokens")
    work.drop(work.weights.tensors)
    assert work.left == [tensor.name for tensor in work.weights.tensors]
    work.tensors[work.head] = work.tensors[work.table]
    assert not work.is_tied
    assert work.found("lm_head.weight") == "lm_head.weight"
