"""Tiny models of every kind of Gemma 4: their dimensions, and random weights as Hugging Face stores them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemmaq.models.gemma4.config import TextConfig, pattern
from gemmaq.models.gemma4.hf_config import to_hf
from gemmaq.models.gemma4.names import shapes
from gemmaq.models.roles import Role
from synthetic import bf16, write_safetensors

_BASE = TextConfig(
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=64,
    global_head_dim=128,
    vocab_size=512,
    vocab_size_per_layer_input=512,
    hidden_size_per_layer_input=0,
    max_position_embeddings=4096,
    sliding_window=16,
    final_logit_softcapping=30.0,
    layer_pattern=pattern(6, 6),
)

DENSE = replace(_BASE, num_global_key_value_heads=2, attention_k_eq_v=True)
"""Like 31B: keys serve as values in global layers."""
UNIFIED = replace(DENSE, num_key_value_heads=2, num_global_key_value_heads=1)
"""Like the text side of 12B."""
EFFECTIVE = replace(
    _BASE,
    num_hidden_layers=10,
    num_key_value_heads=1,
    hidden_size_per_layer_input=256,
    num_kv_shared_layers=5,
    use_double_wide_mlp=True,
    layer_pattern=pattern(10, 5),
)
"""Like E2B: layer embeddings, shared keys and values, a wider feed-forward part in the layers that share them."""
EXPERTS = replace(
    DENSE, intermediate_size=288, enable_moe_block=True, num_experts=16, top_k_experts=4, moe_intermediate_size=96
)
"""Like 26B-A4B."""
KINDS = {"dense": DENSE, "effective": EFFECTIVE, "experts": EXPERTS, "unified": UNIFIED}


def weights(config: TextConfig, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """F32 weights of every tensor under its canonical name, of the size that keeps activations near 1."""
    from gemmaq.models.gemma4.names import place

    random = np.random.default_rng(seed)
    for name, shape in shapes(config):
        values = random.standard_normal(shape, np.float32)
        role = place(name).role
        if name.endswith("layer_scalar"):
            values = np.float32(0.8) + 0 * values
        elif role in (Role.NORM, Role.SCALAR):
            values = 1 + np.float32(0.2) * values
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                values *= np.float32(0.3)  # attention is not scaled: else it would be on single tokens, and chaotic
        elif role.is_table:
            values *= np.float32(0.05)
        else:
            values *= np.float32(shape[-1] ** -0.5)
        if role is Role.ROUTER:
            values *= np.float32(4)  # the last expert that is chosen counts little: else routing is chaotic, too
        yield name, values


def write(folder: Path, config: TextConfig, tensors: dict[str, np.ndarray] | None = None) -> Path:
    """A Hugging Face folder in BF16, without a tokenizer; f32 tensors by canonical name, random ones if not given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_hf(config, "bfloat16")))
    stored = {name: bf16(values) for name, values in (tensors or dict(weights(config))).items()}
    layout = {name: ("BF16", values.shape) for name, values in stored.items()}
    write_safetensors(folder / "model.safetensors", layout, stored)
    return folder


def folders(root: Path) -> dict[str, Path]:
    """A Hugging Face folder of every kind with a tokenizer."""
    import gemma4_tokenizer

    made = {kind: write(root / f"gemma-4-{kind}", config) for kind, config in KINDS.items()}
    return {kind: gemma4_tokenizer.write(folder) for kind, folder in made.items()}
