"""Tensor names of the Gemma 4 text model: spellings of Hugging Face and MLX, GGUF names, places and shapes.

The canonical name is that of the text-only Hugging Face layout: `model.layers.0.self_attn.q_proj.weight`. Experts are
stacks as there: `experts.gate_up_proj` has the gate's rows of an expert before the rows of its up projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gemmaq.models import roles, text_names
from gemmaq.models.config import Layer
from gemmaq.models.gemma4.config import TextConfig
from gemmaq.models.gemma4.tower_names import MODULES
from gemmaq.models.roles import Place, Role
from gemmaq.models.slices import Slice
from gemmaq.models.text_names import EMBEDDING as EMBEDDING
from gemmaq.models.text_names import FINAL_NORM as FINAL_NORM
from gemmaq.models.text_names import HEAD as HEAD

LAYER_EMBEDDING = "model.embed_tokens_per_layer.weight"
LAYER_PROJECTION = "model.per_layer_model_projection.weight"
LAYER_PROJECTION_NORM = "model.per_layer_projection_norm.weight"

GATE_UP, DOWN_STACK = "experts.gate_up_proj", "experts.down_proj"
LAYER_INPUT_GATE, LAYER_INPUT_PROJECTION = "per_layer_input_gate", "per_layer_projection"

_LAYER_GGUF = {
    "input_layernorm": "attn_norm.weight",
    "layer_scalar": "layer_output_scale.weight",
    "self_attn.q_proj": "attn_q.weight",
    "self_attn.k_proj": "attn_k.weight",
    "self_attn.v_proj": "attn_v.weight",
    "self_attn.o_proj": "attn_output.weight",
    "self_attn.q_norm": "attn_q_norm.weight",
    "self_attn.k_norm": "attn_k_norm.weight",
    "post_attention_layernorm": "post_attention_norm.weight",
    "pre_feedforward_layernorm": "ffn_norm.weight",
    "mlp.gate_proj": "ffn_gate.weight",
    "mlp.up_proj": "ffn_up.weight",
    "mlp.down_proj": "ffn_down.weight",
    "post_feedforward_layernorm": "post_ffw_norm.weight",
    LAYER_INPUT_GATE: "inp_gate.weight",
    LAYER_INPUT_PROJECTION: "proj.weight",
    "post_per_layer_input_norm": "post_norm.weight",
    "router.proj": "ffn_gate_inp.weight",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    GATE_UP: "ffn_gate_up_exps.weight",
    DOWN_STACK: "ffn_down_exps.weight",
    "pre_feedforward_layernorm_2": "pre_ffw_norm_2.weight",
    "post_feedforward_layernorm_1": "post_ffw_norm_1.weight",
    "post_feedforward_layernorm_2": "post_ffw_norm_2.weight",
}
_MATRICES = text_names.MATRICES | {
    LAYER_INPUT_GATE: "layer input gate",
    LAYER_INPUT_PROJECTION: "layer input proj",
}
_EXPERTS = {GATE_UP: roles.GATE_UP_EXPERTS, DOWN_STACK: roles.DOWN_EXPERTS}
_SCALARS = ("layer_scalar", "router.scale", "router.per_expert_scale")
KINDS = (
    *_MATRICES.values(),
    *_EXPERTS.values(),
    *("router", "embedding", "layer embedding", "layer projection", "head", "norm", "scalar", "vision", "audio"),
)
"""Kinds of tensors in the order of a table."""

_TABLE = text_names.Table(
    _LAYER_GGUF,
    places={
        **{part: (Role.MATRIX, kind) for part, kind in _MATRICES.items()},
        **{part: (Role.EXPERTS, kind) for part, kind in _EXPERTS.items()},
        "router.proj": (Role.ROUTER, "router"),
        **dict.fromkeys(_SCALARS, (Role.SCALAR, "scalar")),
    },
    outer={
        LAYER_EMBEDDING: ("per_layer_token_embd.weight", Place(Role.LAYER_EMBEDDING, kind="layer embedding")),
        LAYER_PROJECTION: ("per_layer_model_proj.weight", Place(Role.LAYER_PROJECTION, kind="layer projection")),
        LAYER_PROJECTION_NORM: ("per_layer_proj_norm.weight", Place(Role.NORM, kind="norm")),
    },
    bare=(*_SCALARS, *_EXPERTS),
)
in_layer, to_gguf, from_gguf, place = _TABLE.in_layer, _TABLE.to_gguf, _TABLE.from_gguf, _TABLE.place


def canonical(name: str) -> str | None:
    """Canonical name of a tensor in any Hugging Face spelling, None for a tensor of the towers."""
    return text_names.canonical(name, MODULES)


def nested(name: str) -> str:
    """Name of a canonical name in the layout of models with towers."""
    return f"language_model.{name}"


def nested_hf(name: str) -> str:
    """The same in a folder that transformers loads."""
    return "model.language_model." + name.removeprefix("model.") if name != HEAD else name


def input_sites(config: TextConfig, layer: int) -> Mapping[str, tuple[str, ...]]:
    """Parts of a layer that share an input, keyed by the first of them.

    Experts are not among them: each sees only the tokens that are routed to it.
    """
    shape = config.layers[layer]
    attention = ["self_attn.q_proj"]
    if shape.kv_from is None:
        attention += ["self_attn.k_proj"] if shape.k_is_v else ["self_attn.k_proj", "self_attn.v_proj"]
    sites = {
        "self_attn.q_proj": tuple(attention),
        "self_attn.o_proj": ("self_attn.o_proj",),
        "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down_proj": ("mlp.down_proj",),
    }
    if config.layer_embedding:
        sites |= {part: (part,) for part in (LAYER_INPUT_GATE, LAYER_INPUT_PROJECTION)}
    return sites


def shapes(config: TextConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of a text model with a tied head: name and shape (rows first), in the order of files."""
    hidden, width = config.hidden_size, config.layer_embedding
    yield EMBEDDING, (config.vocab_size, hidden)
    if width:
        across = config.num_hidden_layers * width
        yield LAYER_EMBEDDING, (config.vocab_size_per_layer_input, across)
        yield LAYER_PROJECTION, (across, hidden)
        yield LAYER_PROJECTION_NORM, (width,)
    for index, layer in enumerate(config.layers):
        present = _shapes_of(layer, hidden, width)
        for part in _LAYER_GGUF:
            if part in present:
                yield in_layer(index, part), present[part]
    yield FINAL_NORM, (hidden,)


def _shapes_of(layer: Layer, hidden: int, width: int) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a layer by its part; `width` is that of the layer embedding."""
    norms = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    result: dict[str, tuple[int, ...]] = dict.fromkeys(norms, (hidden,))
    result |= {
        "layer_scalar": (1,),
        "self_attn.q_proj": (layer.query_width, hidden),
        "self_attn.o_proj": (hidden, layer.query_width),
        "self_attn.q_norm": (layer.head_dim,),
        "mlp.gate_proj": (layer.ffn, hidden),
        "mlp.up_proj": (layer.ffn, hidden),
        "mlp.down_proj": (hidden, layer.ffn),
    }
    if layer.kv_from is None:
        result |= {"self_attn.k_proj": (layer.kv_width, hidden), "self_attn.k_norm": (layer.head_dim,)}
        if not layer.k_is_v:
            result["self_attn.v_proj"] = (layer.kv_width, hidden)
    if width:
        result |= {
            LAYER_INPUT_GATE: (width, hidden),
            LAYER_INPUT_PROJECTION: (hidden, width),
            "post_per_layer_input_norm": (hidden,),
        }
    if layer.experts is not None:
        count, ffn = layer.experts.count, layer.experts.ffn
        extra = ("pre_feedforward_layernorm_2", "post_feedforward_layernorm_1", "post_feedforward_layernorm_2")
        result |= dict.fromkeys(extra, (hidden,))
        result |= {
            "router.proj": (count, hidden),
            "router.scale": (hidden,),
            "router.per_expert_scale": (count,),
            GATE_UP: (count, 2 * ffn, hidden),
            DOWN_STACK: (count, hidden, ffn),
        }
    return result


def slices(name: str, shape: tuple[int, ...], *, per_expert: bool) -> tuple[Slice, ...]:
    """Tensors that other layouts store for a stack of experts.

    MLX has a stack each for gate, up and down projection; vLLM reads the three matrices of every expert.

    Args:
        name: Canonical name of a tensor.
        shape: Its shape.
        per_expert: Whether every expert has matrices of its own.

    Returns:
        The slices; empty for a tensor that is no stack of experts.
    """
    found = place(name)
    if found.role is not Role.EXPERTS:
        return ()
    experts, rows, columns = shape
    projections = ("gate_proj", "up_proj") if found.part == GATE_UP else ("down_proj",)
    each = rows // len(projections)
    before = name.removesuffix(found.part) + "experts."
    result = []
    for at, projection in enumerate(projections):
        runs = tuple((expert * rows + at * each, each) for expert in range(experts))
        if per_expert:
            result += [
                Slice(f"{before}{expert}.{projection}.weight", (each, columns), (run,))
                for expert, run in enumerate(runs)
            ]
        else:
            result.append(Slice(f"{before}switch_glu.{projection}.weight", (experts, each, columns), runs))
    return tuple(result)


def is_surplus(name: str, config: TextConfig) -> bool:
    """Whether a tensor that `shapes` lacks belongs to the model all the same, and no runtime reads it.

    Releases of April 2026 carry keys and values for layers that use those of another layer.
    """
    place_ = place(name)
    unused = place_.part in ("self_attn.k_proj", "self_attn.v_proj", "self_attn.k_norm")
    return unused and place_.layer is not None and place_.layer >= config.own_layers


def idle(config: TextConfig) -> Mapping[str, str]:
    """No tensors: no runtime demands any that it does not use."""
    del config
    return {}
