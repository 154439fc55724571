"""Tensor names of the Gemma 3 text model: spellings of Hugging Face, GGUF names, places and shapes.

The canonical name is that of the text-only Hugging Face layout: `model.layers.0.self_attn.q_proj.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from gemmaq.models.gemma3.config import TextConfig
from gemmaq.models.roles import DOWN, GATE, KEY, OUTPUT, QUERY, UP, VALUE, Place, Role

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
HEAD = "lm_head.weight"

_PREFIXES = ("model.language_model.model.", "language_model.model.", "model.language_model.", "model.")
_VISION = re.compile(r"(^|\.)(vision_tower|multi_modal_projector|vision_model)\.")
_OTHER_GGUF = {EMBEDDING: "token_embd.weight", FINAL_NORM: "output_norm.weight", HEAD: "output.weight"}
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
_LAYER_HF = {gguf: hf for hf, gguf in _LAYER_GGUF.items()}
_OTHER_HF = {gguf: hf for hf, gguf in _OTHER_GGUF.items()}
_IN_LAYER = re.compile(r"model\.layers\.(?P<layer>\d+)\.(?P<part>.+)\.weight")


def canonical(name: str) -> str | None:
    """Canonical name of a tensor in any Hugging Face spelling, None for a tensor of the vision side."""
    if _VISION.search(name):
        return None
    if name.endswith(HEAD):
        return HEAD
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return "model." + name[len(prefix) :]
    return name if "." not in name else "model." + name


def to_gguf(name: str) -> str:
    """GGUF name of a canonical name."""
    if name in _OTHER_GGUF:
        return _OTHER_GGUF[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_LAYER_GGUF[rest.removesuffix('.weight')]}.weight"


def from_gguf(name: str) -> str | None:
    """Canonical name of a GGUF tensor, None if the text model has no such tensor."""
    if name in _OTHER_HF:
        return _OTHER_HF[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if match is None or match[2] not in _LAYER_HF:
        return None
    return in_layer(int(match[1]), _LAYER_HF[match[2]])


_INPUT_SITES: Mapping[str, tuple[str, ...]] = {
    "self_attn.q_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
_KINDS = {
    "self_attn.q_proj": QUERY,
    "self_attn.k_proj": KEY,
    "self_attn.v_proj": VALUE,
    "self_attn.o_proj": OUTPUT,
    "mlp.gate_proj": GATE,
    "mlp.up_proj": UP,
    "mlp.down_proj": DOWN,
}
KINDS = (*_KINDS.values(), "embedding", "head", "norm", "vision")
"""Kinds of tensors in the order of a table."""

_PLACES = {
    EMBEDDING: Place(Role.EMBEDDING, kind="embedding"),
    HEAD: Place(Role.HEAD, kind="head"),
    FINAL_NORM: Place(Role.NORM, kind="norm"),
}


def in_layer(layer: int, part: str) -> str:
    """Canonical name of a decoder layer's tensor."""
    return f"model.layers.{layer}.{part}.weight"


def input_sites(config: TextConfig, layer: int) -> Mapping[str, tuple[str, ...]]:
    """Parts of a layer that share an input, keyed by the first of them: alike in every layer."""
    return _INPUT_SITES


def place(name: str) -> Place:
    """Place of a canonical name in the model; for a name that no model has, the role is SCALAR."""
    if name in _PLACES:
        return _PLACES[name]
    match = _IN_LAYER.fullmatch(name)
    if match is None or match["part"] not in _LAYER_GGUF:
        return Place(Role.SCALAR)
    layer, part = int(match["layer"]), match["part"]
    if part in _KINDS:
        return Place(Role.MATRIX, layer, part, _KINDS[part])
    return Place(Role.NORM, layer, part, "norm")


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
