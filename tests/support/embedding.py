"""A tiny EmbeddingGemma as sentence-transformers saves it: bare text model, pooling and two dense heads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemmaq.models.gemma3.config import pattern
from small import tokenizer
from synthetic import TINY, write_checkpoint, write_safetensors

CONFIG = replace(
    TINY,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=6,
    num_attention_heads=4,
    head_dim=64,
    query_pre_attn_scalar=64,
    vocab_size=4096,
    sliding_window=16,
    layer_pattern=pattern(6, 6),
)
DENSE = {"2_Dense": (1024, 256), "3_Dense": (256, 1024)}
"""Folder -> shape of its matrix; mlx-embeddings wants four times the width between the two."""


def write_model(folder: Path, *, pooling: str = "pooling_mode_mean_tokens", heads: bool = True) -> Path:
    """The folder of such a model; `pooling` is the mode that its pooling module has, `heads` its dense heads."""
    write_checkpoint(folder, CONFIG, prefix="")
    document = json.loads((folder / "config.json").read_text())
    document |= {"architectures": ["Gemma3TextModel"], "use_bidirectional_attention": True}
    _write(folder / "config.json", document)
    for name, data in tokenizer(CONFIG.vocab_size).items():
        (folder / name).write_bytes(data)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *((path, "Dense") for path in DENSE if heads)]
    described = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate([*modules, ("4_Normalize", "Normalize")])
    ]
    _write(folder / "modules.json", described)
    _write(folder / "config_sentence_transformers.json", {"prompts": {"query": "task: search result | query: "}})
    _write(folder / "sentence_bert_config.json", {"max_seq_length": CONFIG.max_position_embeddings})
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": CONFIG.hidden_size, pooling: True})
    random = np.random.default_rng(7)
    for path, shape in DENSE.items() if heads else ():
        about = {"in_features": shape[1], "out_features": shape[0], "bias": False}
        _write(folder / path / "config.json", about | {"activation_function": "torch.nn.modules.linear.Identity"})
        weights = random.standard_normal(shape, np.float32) * np.float32(shape[1] ** -0.5)
        write_safetensors(
            folder / path / "model.safetensors", {"linear.weight": ("F32", shape)}, {"linear.weight": weights}
        )
    return folder


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
