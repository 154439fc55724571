"""GGUF metadata keys of Gemma 3n, read and written.

llama.cpp reads few of the dimensions: the others are written into its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemmaq.errors import InputError
from gemmaq.models import gguf_numbers
from gemmaq.models.gemma3n.config import TextConfig
from gemmaq.models.gemma3n.names import EMBEDDING, LAYER_EMBEDDING, in_layer, to_gguf

ARCHITECTURE = "gemma3n"
NORM_SHIFT = 0.0
"""Norms multiply with their weights as Hugging Face stores them."""

_INTEGERS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attention.shared_kv_layers": "num_kv_shared_layers",
    "embedding_length_per_layer_input": "hidden_size_per_layer_input",
    "altup.active_idx": "altup_active_idx",
    "altup.num_inputs": "altup_num_inputs",
}
_FLOATS = {
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "final_logit_softcapping": "final_logit_softcapping",
}
_FROM_ZERO = ("attention.shared_kv_layers", "altup.active_idx")
_REQUIRED = ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv")


def from_config(config: TextConfig) -> dict[str, Any]:
    """Keys of a text model, without the architecture as prefix.

    Raises:
        InputError: llama.cpp would compute something else.
    """
    _check_fixed(config)
    keys: dict[str, Any] = {key: getattr(config, name) for key, name in _INTEGERS.items()}
    keys |= {key: float(value) for key, name in _FLOATS.items() if (value := getattr(config, name)) is not None}
    keys["feed_forward_length"] = list(config.intermediate_size)
    keys["attention.sliding_window_pattern"] = list(config.layer_pattern)
    keys["activation_sparsity_scale"] = tuple(_deviations(share) for share in config.activation_sparsity_pattern)
    return keys


def _check_fixed(config: TextConfig) -> None:
    """Refuse dimensions other than those in llama.cpp's code."""
    sparse = [share == (0.95 if at < 10 else 0.0) for at, share in enumerate(config.activation_sparsity_pattern)]
    fixed = {
        "4 streams of AltUp": config.streams == 4,
        "layer embeddings of 256 numbers": config.layer_embedding == 256,
        "20 layers with keys and values of their own": config.own_layers == 20,
        "a sparsity of 0.95 in the first 10 layers alone": all(sparse),
        "scaled corrections of AltUp": config.altup_correct_scale,
        "logits capped at 30": config.final_logit_softcapping == 30,
    }
    for what, holds in fixed.items():
        if not holds:
            raise InputError(
                f"GGUF cannot hold this model: llama.cpp runs Gemma 3n with {what} only",
                "MLX and safetensors folders can hold it",
            )


def _deviations(share: float) -> float:
    """Standard deviations above the mean below which that share of a normal distribution lies."""
    return NormalDist().inv_cdf(share) if share else float("-inf")


def generated(config: TextConfig) -> dict[str, NDArray[np.float32]]:
    """No tensors: llama.cpp wants none that checkpoints lack."""
    del config
    return {}


def to_config(keys: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> TextConfig:
    """Config of a text model from its GGUF keys and tensors.

    Files have layer embeddings for the whole vocabulary; the rows beyond those of the published models are zeros.

    Args:
        keys: All keys of the file.
        shapes: Shape of every tensor by its GGUF name, rows first.

    Raises:
        InputError: A key is missing or of the wrong kind.
    """
    values = gguf_numbers.read(
        keys, ARCHITECTURE, integers=_INTEGERS, floats=_FLOATS, required=_REQUIRED, from_zero=_FROM_ZERO
    )
    gguf_numbers.unscaled(keys, ARCHITECTURE)
    layers = values["num_hidden_layers"]
    if values.get("num_kv_shared_layers", 0) >= layers:
        raise InputError(f"GGUF key {ARCHITECTURE}.attention.shared_kv_layers is {values['num_kv_shared_layers']}")
    scales = gguf_numbers.per_layer(keys, f"{ARCHITECTURE}.activation_sparsity_scale", layers, endless=True)
    ffn = gguf_numbers.per_layer(keys, f"{ARCHITECTURE}.feed_forward_length", layers)
    if min(ffn) < 1:
        raise InputError(f"GGUF key {ARCHITECTURE}.feed_forward_length is {ffn!r:.60}")
    tables = {name: shapes.get(to_gguf(name), (1,))[0] for name in (EMBEDDING, LAYER_EMBEDDING)}
    config = TextConfig(
        **values,
        intermediate_size=tuple(int(width) for width in ffn),
        activation_sparsity_pattern=tuple(round(NormalDist().cdf(scale), 6) for scale in scales),
        layer_pattern=tuple(
            bool(flag)
            for flag in gguf_numbers.per_layer(keys, f"{ARCHITECTURE}.attention.sliding_window_pattern", layers)
        ),
        laurel_rank=shapes.get(to_gguf(in_layer(0, "laurel.linear_left")), (1,))[0],
        vocab_size=tables[EMBEDDING],
        vocab_size_per_layer_input=min(tables[LAYER_EMBEDDING], TextConfig().vocab_size_per_layer_input),
        **gguf_numbers.token_ids(keys),
    )
    if not set(config.layer_pattern) <= set(config.layer_pattern[: config.own_layers]):
        raise InputError(f"GGUF key {ARCHITECTURE}.attention.shared_kv_layers leaves layers without keys and values")
    return config
