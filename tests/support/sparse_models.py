"""GGUF files of Gemma 4 and Gemma 3n in full dimensions, with a hole where their weights would be.

They are written from the dimensions alone, so that what gemmaq says of a model's memory is compared with llama.cpp and
not with gemmaq's own names and keys. All matrices are F16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemmaq.models.config import Experts, Layer
from memory import MixedConfig

_RANK, _STREAMS, _SPARSE = 64, 4, 10


@dataclass(frozen=True)
class Shape:
    """Dimensions of a model; pairs are those of sliding-window and of global layers."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: tuple[int, int]
    window: int
    period: int
    context: int
    shared: int = 0
    double: bool = False
    width: int = 0
    k_is_v: bool = False
    experts: Experts | None = None
    head_dims: tuple[int, int] = (256, 512)
    streams: int = 1
    vocabulary: int = 262144

    @property
    def config(self) -> MixedConfig:
        """The same as gemmaq reads it."""
        own = self.layers - self.shared
        layers: list[Layer] = []
        for number in range(self.layers):
            everywhere = (number + 1) % self.period == 0
            alike = [at for at in range(own) if ((at + 1) % self.period == 0) == everywhere]
            layers.append(
                Layer(
                    self.heads,
                    self.kv_heads[everywhere],
                    self.head_dims[everywhere],
                    self.ffn * (2 if self.double and number >= own else 1),
                    None if everywhere else self.window,
                    kv_from=alike[-1] if number >= own else None,
                    k_is_v=self.k_is_v and everywhere,
                    experts=self.experts,
                    sparse=self.streams > 1 and number < _SPARSE,
                )
            )
        return MixedConfig(
            tuple(layers),
            self.hidden,
            self.vocabulary,
            self.context,
            final_logit_softcapping=30.0,
            layer_embedding=self.width,
            streams=self.streams,
            normed_values=True,
        )


def _streams(layers: int, ffn: int, shared: int) -> Shape:
    return Shape(
        layers, 2048, ffn, 8, (2, 2), 512, 5, 32768, shared, width=256, head_dims=(256, 256),
        streams=_STREAMS, vocabulary=262400,
    )  # fmt: skip


SHAPES = {
    "gemma-4-E2B": Shape(35, 1536, 6144, 8, (1, 1), 512, 5, 131072, 20, double=True, width=256),
    "gemma-4-E4B": Shape(42, 2560, 10240, 8, (2, 2), 512, 6, 131072, 18, width=256),
    "gemma-4-12B": Shape(48, 3840, 15360, 16, (8, 1), 1024, 6, 262144, k_is_v=True),
    "gemma-4-26B": Shape(30, 2816, 2112, 16, (8, 2), 1024, 6, 262144, k_is_v=True, experts=Experts(128, 8, 704)),
    "gemma-4-31B": Shape(60, 5376, 21504, 32, (16, 4), 1024, 6, 262144, k_is_v=True),
    "gemma-3n-E2B": _streams(30, 8192, 10),
    "gemma-3n-E4B": _streams(35, 16384, 15),
}


def write(path: Path, shape: Shape) -> Path:
    """Write a model's header, and a hole for its weights."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

    architecture = "gemma3n" if shape.streams > 1 else "gemma4"
    writer = GGUFWriter(path, architecture)
    for key, value in _keys(shape).items():
        name = f"{architecture}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    size = 0
    for name, *rows in _tensors(shape):
        wide = len(rows) > 1
        nbytes = int(np.prod(rows, dtype=np.int64)) * (2 if wide else 4)
        kind = GGMLQuantizationType.F16 if wide else GGMLQuantizationType.F32
        full = name if name.endswith(".scale") else f"{name}.weight"
        writer.add_tensor_info(full, rows, np.dtype(np.float16 if wide else np.float32), nbytes, kind)
        size += -(-nbytes // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(-(-path.stat().st_size // 32) * 32 + size)
    return path


def _keys(shape: Shape) -> dict[str, Any]:
    layers = shape.config.layers
    keys: dict[str, Any] = {
        "block_count": shape.layers,
        "context_length": shape.context,
        "embedding_length": shape.hidden,
        "feed_forward_length": [layer.ffn for layer in layers],
        "attention.head_count": shape.heads,
        "attention.head_count_kv": [layer.kv_heads for layer in layers],
        "attention.key_length": shape.head_dims[1],
        "attention.value_length": shape.head_dims[1],
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.sliding_window": shape.window,
        "attention.sliding_window_pattern": [layer.is_local for layer in layers],
        "attention.shared_kv_layers": shape.shared,
        "embedding_length_per_layer_input": shape.width,
        "rope.freq_base": 1e6,
        "rope.freq_base_swa": 1e4,
        "final_logit_softcapping": 30.0,
        "vocab_size": shape.vocabulary,
    }
    if shape.streams > 1:
        sparsity = [1.6448535919189453 if layer.sparse else float("-inf") for layer in layers]
        keys |= {"altup.active_idx": 0, "altup.num_inputs": shape.streams, "activation_sparsity_scale": sparsity}
        return keys | {"attention.head_count_kv": shape.kv_heads[0]}
    keys |= {"attention.key_length_swa": shape.head_dims[0], "attention.value_length_swa": shape.head_dims[0]}
    keys |= {"rope.dimension_count": shape.head_dims[1], "rope.dimension_count_swa": shape.head_dims[0]}
    if shape.experts:
        keys |= {"expert_count": shape.experts.count, "expert_used_count": shape.experts.active}
        keys["expert_feed_forward_length"] = shape.experts.ffn
    return keys


def _tensors(shape: Shape) -> Iterator[tuple[Any, ...]]:
    """Names without `.weight`, and rows-first shapes."""
    hidden, streams, wide = shape.hidden, shape.streams, shape.layers * shape.width
    yield "token_embd", shape.vocabulary, hidden
    yield "output_norm", hidden
    if shape.width:
        yield "per_layer_token_embd", shape.vocabulary, wide
        yield "per_layer_model_proj", wide, hidden
        yield "per_layer_proj_norm", shape.width
    if streams > 1:
        yield "altup_proj", streams - 1, hidden, hidden
        yield "altup_unembd_proj", streams - 1, hidden, hidden
    else:
        yield "rope_freqs", shape.head_dims[1] // 2
    for number, layer in enumerate(shape.config.layers):
        for name, *rows in (*_common(shape, layer), *_special(shape, layer)):
            yield f"blk.{number}.{name}", *rows


def _common(shape: Shape, layer: Layer) -> Iterator[tuple[Any, ...]]:
    hidden = shape.hidden
    for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
        yield name, hidden
    yield "attn_q_norm", layer.head_dim
    yield "attn_q", layer.query_width, hidden
    yield "attn_output", hidden, layer.query_width
    if layer.kv_from is None or shape.streams > 1:
        yield "attn_k_norm", layer.head_dim
        yield "attn_k", layer.kv_width, hidden
        if not layer.k_is_v:
            yield "attn_v", layer.kv_width, hidden
    yield "ffn_gate", layer.ffn, hidden
    yield "ffn_up", layer.ffn, hidden
    yield "ffn_down", hidden, layer.ffn
    if shape.width:
        yield "inp_gate", shape.width, hidden
        yield "proj", hidden, shape.width
        yield "post_norm", hidden


def _special(shape: Shape, layer: Layer) -> Iterator[tuple[Any, ...]]:
    hidden, streams, experts = shape.hidden, shape.streams, layer.experts
    if streams == 1:
        yield "layer_output_scale", 1
    else:
        yield "altup_correct_scale", hidden
        yield "altup_correct_coef", streams, streams
        yield "altup_router", streams, hidden
        yield "altup_predict_coef", streams**2, streams
        yield "altup_router_norm", hidden
        yield "laurel_post_norm", hidden
        yield "laurel_l", _RANK, hidden
        yield "laurel_r", hidden, _RANK
    if experts:
        yield "ffn_gate_inp", experts.count, hidden
        yield "ffn_gate_inp.scale", hidden
        yield "ffn_down_exps.scale", experts.count
        yield "ffn_gate_up_exps", experts.count, 2 * experts.ffn, hidden
        yield "ffn_down_exps", experts.count, hidden, experts.ffn
        for name in ("post_ffw_norm_1", "post_ffw_norm_2", "pre_ffw_norm_2"):
            yield name, hidden
