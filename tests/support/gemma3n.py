"""A tiny Gemma 3n: dimensions that llama.cpp runs, random weights as Hugging Face stores them, and a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from gemmaq.files import sentencepiece
from gemmaq.files.sentencepiece import BYTE, BYTES, CONTROL, NORMAL, UNKNOWN
from gemmaq.models.gemma3n import names
from gemmaq.models.gemma3n.config import TextConfig, pattern
from gemmaq.models.gemma3n.hf_config import to_hf
from gemmaq.models.roles import Role
from synthetic import bf16, write_safetensors

CONFIG = TextConfig(
    hidden_size=256,
    intermediate_size=(512,) * 25,
    num_hidden_layers=25,
    num_attention_heads=4,
    num_key_value_heads=1,
    head_dim=64,
    vocab_size=400,
    vocab_size_per_layer_input=320,
    num_kv_shared_layers=5,
    max_position_embeddings=4096,
    sliding_window=16,
    activation_sparsity_pattern=(0.95,) * 10 + (0.0,) * 15,
    layer_pattern=pattern(25),
)
"""With fewer rows of layer embeddings than tokens, as in the published models."""


def weights(config: TextConfig = CONFIG, seed: int = 0, *, idle: bool = False) -> Iterator[tuple[str, np.ndarray]]:
    """F32 weights under the names of a Hugging Face folder, with `idle` those that no runtime uses too."""
    random = np.random.default_rng(seed)
    shapes = dict(names.shapes(config))
    shapes |= {name: shapes[other] for name, other in names.idle(config).items()} if idle else {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape, np.float32)
        role = names.place(name).role
        if role in (Role.NORM, Role.SCALAR):
            values = 1 + np.float32(0.2) * values
        else:
            values *= np.float32(0.05 if role.is_table else shape[-1] ** -0.5)
        slices = names.slices(name, shape, per_expert=False)
        for at, part in enumerate(slices):
            yield part.name, values[at]
        if not slices:
            yield name, values


def write(folder: Path, tensors: Mapping[str, np.ndarray] | None = None) -> Path:
    """A Hugging Face folder in BF16 with a tokenizer; f32 tensors by name, random ones if not given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_hf(CONFIG, "bfloat16")))
    stored = {name: bf16(values) for name, values in (tensors or dict(weights())).items()}
    write_safetensors(
        folder / "model.safetensors", {name: ("BF16", values.shape) for name, values in stored.items()}, stored
    )
    pieces = [("<pad>", CONTROL), ("<eos>", CONTROL), ("<bos>", CONTROL), ("<unk>", UNKNOWN)]
    pieces += [(text, BYTE) for text in BYTES] + [(chr(at), NORMAL) for at in range(33, 93)]
    scored = [(text, float(-at), kind) for at, (text, kind) in enumerate(pieces)]
    (folder / "tokenizer.model").write_bytes(sentencepiece.write(scored, len(scored)))
    settings = {f"{text[1:-1]}_token": text for text, _ in pieces[:4]} | {"tokenizer_class": "GemmaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
