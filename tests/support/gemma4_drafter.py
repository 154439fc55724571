"""Tiny drafters for the tiny models of Gemma 4: their dimensions, and folders with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import gemma4
from gemmaq.models.gemma4.config import TextConfig, pattern
from gemmaq.models.gemma4_drafter import names
from gemmaq.models.gemma4_drafter.hf_config import of_drafter, to_hf
from gemmaq.models.roles import Role
from synthetic import bf16, write_safetensors

CENTROIDS = 16
MASKED = ("masked_embedding.centroids.weight", "masked_embedding.token_ordering")


def drafter_of(target: TextConfig, hidden: int) -> TextConfig:
    """Three layers with a window and a global one, with the heads and keys of the target, 128 wide inside."""
    body = replace(
        target,
        hidden_size=hidden,
        intermediate_size=128,
        num_hidden_layers=4,
        hidden_size_per_layer_input=0,
        use_double_wide_mlp=False,
        enable_moe_block=False,
        num_experts=None,
        top_k_experts=None,
        moe_intermediate_size=None,
        layer_pattern=pattern(4, 4),
    )
    return of_drafter(body, target.hidden_size)


KINDS = {kind: drafter_of(target, 64 if kind == "effective" else 512) for kind, target in gemma4.KINDS.items()}
"""A drafter for each kind of target; that of `effective` has centroids, and rows too short for blocks of 256."""


@dataclass(frozen=True)
class Drafter:
    """A drafter to be written.

    Attributes:
        config: Its dimensions.
        centroids: Whether it has centroids and an order of tokens, like E2B's and E4B's.
        unified: Whether its config.json is spelled like that of 12B's.
    """

    config: TextConfig
    centroids: bool = False
    unified: bool = False

    def document(self) -> dict[str, Any]:
        """Content of config.json."""
        made = to_hf(self.config, "bfloat16")
        sizes = {"num_centroids": CENTROIDS, "centroid_intermediate_top_k": 4}
        made |= {"use_ordered_embeddings": self.centroids, **sizes}
        if self.unified:
            absent = (
                "hidden_size_per_layer_input", "vocab_size_per_layer_input", "enable_moe_block", "num_experts",
                "top_k_experts", "moe_intermediate_size",
            )  # fmt: skip
            text = {key: value for key, value in made["text_config"].items() if key not in absent}
            made |= {
                "architectures": ["Gemma4UnifiedAssistantForCausalLM"],
                "model_type": "gemma4_unified_assistant",
                "text_config": {**text, "model_type": "gemma4_unified_text"},
            }
        return made


DRAFTERS = {kind: Drafter(config, kind == "effective", kind == "unified") for kind, config in KINDS.items()}


def weights(config: TextConfig, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """F32 weights of every tensor of the model under its canonical name."""
    random = np.random.default_rng(seed)
    for name, shape in names.shapes(config):
        values = random.standard_normal(shape, np.float32)
        role = names.place(name).role
        if role in (Role.NORM, Role.SCALAR):
            values = 1 + np.float32(0.2) * values
        else:
            values *= np.float32(0.05 if role.is_table else shape[-1] ** -0.5)
        yield name, values


def write(
    folder: Path, drafter: Drafter, tensors: Mapping[str, np.ndarray] | None = None, *, tokenizer: bool = True
) -> Path:
    """A Hugging Face folder in BF16; f32 tensors by canonical name, random ones if not given."""
    import gemma4_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    config = drafter.config
    (folder / "config.json").write_text(json.dumps(drafter.document()))
    made = {name: bf16(values) for name, values in (tensors or dict(weights(config))).items()}
    stored = {name.removeprefix("model.") if "_projection" in name else name: array for name, array in made.items()}
    layout: dict[str, tuple[str, tuple[int, ...]]] = {name: ("BF16", array.shape) for name, array in stored.items()}
    if drafter.centroids:
        random = np.random.default_rng(1)
        centroids = random.standard_normal((CENTROIDS, config.hidden_size), np.float32)
        stored |= {MASKED[0]: bf16(centroids), MASKED[1]: random.permutation(config.vocab_size)}
        layout |= {MASKED[0]: ("BF16", centroids.shape), MASKED[1]: ("I64", (config.vocab_size,))}
    write_safetensors(folder / "model.safetensors", layout, stored)
    return gemma4_tokenizer.write(folder) if tokenizer else folder
