"""Tensor names of the Gemma 3n text model: spellings of Hugging Face and MLX, GGUF names, places and shapes.

The canonical name is that of the text-only Hugging Face layout. Projections into and out of the streams of AltUp are
the exception: folders have one matrix for each further stream, GGUF a stack, and the stack has the canonical name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gemmaq.models import text_names
from gemmaq.models.config import Layer
from gemmaq.models.gemma3n.config import TextConfig
from gemmaq.models.roles import Place, Role
from gemmaq.models.slices import Slice
from gemmaq.models.text_names import EMBEDDING as EMBEDDING
from gemmaq.models.text_names import FINAL_NORM as FINAL_NORM
from gemmaq.models.text_names import HEAD as HEAD

LAYER_EMBEDDING = "model.embed_tokens_per_layer.weight"
LAYER_PROJECTION = "model.per_layer_model_projection.weight"
LAYER_PROJECTION_NORM = "model.per_layer_projection_norm.weight"
INTO_STREAMS = "model.altup_projections.weight"
OUT_OF_STREAMS = "model.altup_unembed_projections.weight"

_TOWERS = ("vision_tower", "audio_tower", "embed_vision", "embed_audio")
_CORRECT_SCALE = "altup.correct_output_scale"
_LAYER_GGUF = {
    "altup.router_norm": "altup_router_norm",
    "altup.modality_router": "altup_router",
    "altup.prediction_coefs": "altup_predict_coef",
    "altup.correction_coefs": "altup_correct_coef",
    _CORRECT_SCALE: "altup_correct_scale",
    "input_layernorm": "attn_norm",
    "laurel.linear_left": "laurel_l",
    "laurel.linear_right": "laurel_r",
    "laurel.post_laurel_norm": "laurel_post_norm",
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
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
}
_MATRICES = text_names.MATRICES | {
    "per_layer_input_gate": "layer input gate",
    "per_layer_projection": "layer input proj",
}
_FLOATS = {"laurel.linear_left": "laurel", "laurel.linear_right": "laurel", "altup.modality_router": "altup"}
_FACTORS = ("altup.prediction_coefs", "altup.correction_coefs")
_KEYS_AND_VALUES = ("self_attn.k_proj", "self_attn.v_proj", "self_attn.k_norm")
KINDS = (
    *_MATRICES.values(),
    *("laurel", "altup", "embedding", "layer embedding", "layer projection", "head", "norm", "scalar"),
)
"""Kinds of tensors in the order of a table."""

_TABLE = text_names.Table(
    {part: f"{gguf}.weight" for part, gguf in _LAYER_GGUF.items()},
    places={
        **{part: (Role.MATRIX, kind) for part, kind in _MATRICES.items()},
        **{part: (Role.FLOAT, kind) for part, kind in _FLOATS.items()},
        **dict.fromkeys(_FACTORS, (Role.ROUTER, "altup")),
        _CORRECT_SCALE: (Role.SCALAR, "scalar"),
    },
    outer={
        LAYER_EMBEDDING: ("per_layer_token_embd.weight", Place(Role.LAYER_EMBEDDING, kind="layer embedding")),
        LAYER_PROJECTION: ("per_layer_model_proj.weight", Place(Role.LAYER_PROJECTION, kind="layer projection")),
        LAYER_PROJECTION_NORM: ("per_layer_proj_norm.weight", Place(Role.NORM, kind="norm")),
        INTO_STREAMS: ("altup_proj.weight", Place(Role.FLOAT, kind="altup")),
        OUT_OF_STREAMS: ("altup_unembd_proj.weight", Place(Role.FLOAT, kind="altup")),
    },
    bare=(_CORRECT_SCALE,),
)
in_layer, to_gguf, from_gguf, place = _TABLE.in_layer, _TABLE.to_gguf, _TABLE.from_gguf, _TABLE.place


def canonical(name: str) -> str | None:
    """Canonical name of a tensor in any Hugging Face spelling, None for a tensor of the towers."""
    return text_names.canonical(name, _TOWERS)


def nested(name: str) -> str:
    """Name of a canonical name in the layout of models with towers."""
    return "model.language_model." + name.removeprefix("model.")


def nested_hf(name: str) -> str:
    """The same in a folder that transformers loads."""
    return nested(name)


def input_sites(config: TextConfig, layer: int) -> Mapping[str, tuple[str, ...]]:
    """Parts of a layer that share an input, keyed by the first of them."""
    own = config.layers[layer].kv_from is None
    attention = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj") if own else ("self_attn.q_proj",)
    alone = ("self_attn.o_proj", "mlp.down_proj", "per_layer_input_gate", "per_layer_projection")
    return {
        "self_attn.q_proj": attention,
        "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
        **{part: (part,) for part in alone},
    }


def shapes(config: TextConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of a text model with a tied head: name and shape (rows first), in the order of files."""
    hidden, width = config.hidden_size, config.layer_embedding
    across, further = config.num_hidden_layers * width, config.streams - 1
    yield EMBEDDING, (config.vocab_size, hidden)
    yield LAYER_EMBEDDING, (config.vocab_size_per_layer_input, across)
    yield LAYER_PROJECTION, (across, hidden)
    yield LAYER_PROJECTION_NORM, (width,)
    yield INTO_STREAMS, (further, hidden, hidden)
    yield OUT_OF_STREAMS, (further, hidden, hidden)
    for index, layer in enumerate(config.layers):
        of_layer = _shapes_of(layer, config)
        for part in _LAYER_GGUF:
            if layer.kv_from is None or part not in _KEYS_AND_VALUES:
                yield in_layer(index, part), of_layer.get(part, (hidden,))
    yield FINAL_NORM, (hidden,)


def _shapes_of(layer: Layer, config: TextConfig) -> dict[str, tuple[int, ...]]:
    """Shape of a layer's tensors by their part; all others are vectors of the hidden size."""
    hidden, width, streams = config.hidden_size, config.layer_embedding, config.streams
    return {
        "altup.modality_router": (streams, hidden),
        "altup.prediction_coefs": (streams**2, streams),
        "altup.correction_coefs": (streams, streams),
        "laurel.linear_left": (config.laurel_rank, hidden),
        "laurel.linear_right": (hidden, config.laurel_rank),
        "self_attn.q_proj": (layer.query_width, hidden),
        "self_attn.k_proj": (layer.kv_width, hidden),
        "self_attn.v_proj": (layer.kv_width, hidden),
        "self_attn.o_proj": (hidden, layer.query_width),
        "self_attn.q_norm": (layer.head_dim,),
        "self_attn.k_norm": (layer.head_dim,),
        "mlp.gate_proj": (layer.ffn, hidden),
        "mlp.up_proj": (layer.ffn, hidden),
        "mlp.down_proj": (hidden, layer.ffn),
        "per_layer_input_gate": (width, hidden),
        "per_layer_projection": (hidden, width),
    }


def slices(name: str, shape: tuple[int, ...], *, per_expert: bool) -> tuple[Slice, ...]:
    """Matrices that folders have in place of a stack, one for each further stream; empty for any other tensor.

    Args:
        name: Canonical name of a tensor.
        shape: Its shape.
        per_expert: Without effect, a model without experts has one layout of folders.
    """
    del per_expert
    if name not in (INTO_STREAMS, OUT_OF_STREAMS):
        return ()
    count, rows, columns = shape
    before = name.removesuffix("weight")
    return tuple(Slice(f"{before}{at}.weight", (rows, columns), ((at * rows, rows),)) for at in range(count))


def is_surplus(name: str, config: TextConfig) -> bool:
    """False: tensors that are not in `shapes` are those of `idle`, or no part of the model."""
    del name, config
    return False


def idle(config: TextConfig) -> Mapping[str, str]:
    """Keys and values of layers that use those of another one -> the ones they use."""
    sources = ((index, layer.kv_from) for index, layer in enumerate(config.layers))
    return {
        in_layer(index, part): in_layer(source, part)
        for index, source in sources
        if source is not None
        for part in _KEYS_AND_VALUES
    }
