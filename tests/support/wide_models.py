"""Small models whose rows take every type, deep enough for the eighths of a mixture; most of their weights are zero."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

import gemma4
import gemma4_tokenizer
from damage import edit_json, header_of, small_model
from gemmaq.models.gemma3.config import TextConfig, pattern
from gemmaq.models.gemma4.config import pattern as pattern_4
from gemmaq.models.roles import Role
from gemmaq.sources.open import open_source
from synthetic import TINY, bf16, write_safetensors

_LIKE_4B = replace(
    TINY,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=17,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    query_pre_attn_scalar=64,
    layer_pattern=pattern(17, 6),
)
_OF_9 = {"num_hidden_layers": 9, "layer_pattern": pattern_4(9, 6)}
CONFIGS = {
    "like-4B": _LIKE_4B,
    "like-1B": replace(_LIKE_4B, num_key_value_heads=1, num_hidden_layers=8, layer_pattern=pattern(8, 6)),
    "like-31B": replace(gemma4.DENSE, **_OF_9),
    "like-E2B": gemma4.EFFECTIVE,
    "like-26B-A4B": replace(
        gemma4.EXPERTS, intermediate_size=512, moe_intermediate_size=256, num_experts=4, top_k_experts=2, **_OF_9
    ),
}
CONFIGS["untied"] = CONFIGS["like-1B"]
_ROWS = 3
"""Rows of a matrix, in every expert, that are not zero: searches for scales take their time."""


def write(kind: str, folder: Path) -> Path:
    """A BF16 Hugging Face folder with a tokenizer."""
    config = CONFIGS[kind]
    if isinstance(config, type(gemma4.DENSE)):
        gemma4_tokenizer.write(gemma4.write(folder, config))
        (folder / "generation_config.json").write_text(json.dumps({"top_k": 64, "eos_token_id": [1, 106]}))
    else:
        small_model(folder, config)
    if kind == "untied":
        untie(folder, config)
    for tensor in open_source(str(folder)).tensors.values():
        if tensor.place.role in (Role.NORM, Role.SCALAR, Role.ROUTER):
            continue
        (part,) = tensor.parts
        (path,) = part.span.paths
        stored = np.memmap(
            path, np.uint16, "r+", part.offset, (tensor.matrices, tensor.rows // tensor.matrices, tensor.columns)
        )
        stored[:, _ROWS:] = 0
    return folder


def untie(folder: Path, config: TextConfig) -> None:
    """Give a Gemma 3 an output head of its own, in a second file."""
    shape = (config.vocab_size, config.hidden_size)
    head = bf16(np.random.default_rng(7).standard_normal(shape, np.float32))
    write_safetensors(folder / "head.safetensors", {"lm_head.weight": ("BF16", shape)}, {"lm_head.weight": head})
    names = [*header_of(folder / "model.safetensors")[0]]
    weight_map = {name: "model.safetensors" for name in names if name != "__metadata__"}
    index = {"metadata": {}, "weight_map": weight_map | {"lm_head.weight": "head.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    edit_json(folder / "config.json", lambda settings: settings.update(tie_word_embeddings=False))


def importances(folder: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """A made-up mean squared input for every column of the matrices of a model, f32, by GGUF name."""
    random, model = np.random.default_rng(seed), open_source(str(folder))
    return {
        model.family.names.to_gguf(name): random.gamma(0.5, 2, tensor.matrices * tensor.columns).astype(np.float32)
        for name, tensor in model.matrices.items()
    }
