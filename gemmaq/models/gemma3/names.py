"""Tensor names of the Gemma 3 text model: spellings of Hugging Face, GGUF names, places and shapes.

The canonical name is that of the text-only Hugging Face layout: `model.layers.0.self_attn.q_proj.weight`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gemmaq.models import text_names
from gemmaq.models.gemma3.config import TextConfig
from gemmaq.models.roles import Role
from gemmaq.models.slices import Slice
from gemmaq.models.text_names import EMBEDDING as EMBEDDING
from gemmaq.models.text_names import FINAL_NORM as FINAL_NORM
from gemmaq.models.text_names import HEAD as HEAD
from gemmaq.models.text_names import MATRICES

_VISION = ("vision_tower", "multi_modal_projector", "vision_model")
_LAYER_GGUF = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_TABLE = text_names.Table(
    {part: f"{gguf}.weight" for part, gguf in _LAYER_GGUF.items()},
    places={part: (Role.MATRIX, kind) for part, kind in MATRICES.items()},
    outer={},
)
in_layer, to_gguf, from_gguf, place = _TABLE.in_layer, _TABLE.to_gguf, _TABLE.from_gguf, _TABLE.place


def canonical(name: str) -> str | None:
    """Canonical name of a tensor in any Hugging Face spelling, None for a tensor of the vision side."""
    return text_names.canonical(name, _VISION)


def nested(name: str) -> str:
    """Name of a canonical name in the layout of models with towers."""
    return f"language_model.{name}"


def nested_hf(name: str) -> str:
    """The same in a folder that transformers loads."""
    return nested(name)


_INPUT_SITES: Mapping[str, tuple[str, ...]] = {
    "self_attn.q_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
KINDS = (*MATRICES.values(), "embedding", "head", "norm", "vision")
"""Kinds of tensors in the order of a table."""


def input_sites(config: TextConfig, layer: int) -> Mapping[str, tuple[str, ...]]:
    """Parts of a layer that share an input, keyed by the first of them: alike in every layer."""
    return _INPUT_SITES


def shapes(config: TextConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of a text model with a tied head: name and shape (rows first), in the order of files."""
    hidden, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    kv_heads, ffn = config.num_key_value_heads * config.head_dim, config.intermediate_size
    matrices = {
        "self_attn.q_proj": (heads, hidden),
        "self_attn.k_proj": (kv_heads, hidden),
        "self_attn.v_proj": (kv_heads, hidden),
        "self_attn.o_proj": (hidden, heads),
        "self_attn.q_norm": (config.head_dim,),
        "self_attn.k_norm": (config.head_dim,),
        "mlp.gate_proj": (ffn, hidden),
        "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
    }
    yield EMBEDDING, (config.vocab_size, hidden)
    for layer in range(config.num_hidden_layers):
        for part in _LAYER_GGUF:
            yield in_layer(layer, part), matrices.get(part, (hidden,))
    yield FINAL_NORM, (hidden,)


def slices(name: str, shape: tuple[int, ...], *, per_expert: bool) -> tuple[Slice, ...]:
    """None: Gemma 3 has no experts."""
    return ()


def is_surplus(name: str, config: TextConfig) -> bool:
    """False: checkpoints have no tensors that runtimes pass over."""
    return False


def idle(config: TextConfig) -> Mapping[str, str]:
    """No tensors: no runtime demands any that it does not use."""
    del config
    return {}
