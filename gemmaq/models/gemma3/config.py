"""config.json of Gemma 3: every spelling is read, and the one that all runtimes understand is written.

Defaults are those of transformers' Gemma3TextConfig: published files rely on them (that of 4B names neither heads nor
head_dim).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from gemmaq.errors import InputError
from gemmaq.models import hf_values
from gemmaq.models.config import Layer, Rope
from gemmaq.models.config_keys import GELU_TANH, PLAIN_ROPE, ConfigKeys

TEXT = "Gemma3ForCausalLM"
MULTIMODAL = "Gemma3ForConditionalGeneration"
MODEL_TYPE, TEXT_MODEL_TYPE = "gemma3", "gemma3_text"
NESTED = False
GUARD, GUARD_MODEL_TYPE = "ShieldGemma2ForImageClassification", "shieldgemma2"
_BARE = ("Gemma3TextModel", "Gemma3Model")
"""Classes without a head, which the embedding serves as."""
ARCHITECTURES = (TEXT, MULTIMODAL, MODEL_TYPE, TEXT_MODEL_TYPE, *_BARE, GUARD, GUARD_MODEL_TYPE)
"""Class names and model types of config.json that are read."""
_NO_CLASSIFIER = (
    "ShieldGemma 2 is Gemma 3 inside and is written as such: the probabilities of Yes and No, "
    "which its class in transformers computes from the logits of these two tokens, are left to you"
)
REMARKS = {GUARD: _NO_CLASSIFIER, GUARD_MODEL_TYPE: _NO_CLASSIFIER}
_SPECIAL = ("layer_pattern", "eos_token_ids")


@dataclass(frozen=True)
class TextConfig:
    """Dimensions and constants of a Gemma 3 text model, by the field names of transformers.

    Attributes:
        layer_pattern: Whether a layer has a sliding window, one flag per layer.
        rope_factor: Linear rope scaling of the global layers, 1.0 for none.
        eos_token_ids: Ids of all tokens that end generation.
    """

    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 256
    vocab_size: int = 262208
    max_position_embeddings: int = 131072
    sliding_window: int = 4096
    rms_norm_eps: float = 1e-6
    query_pre_attn_scalar: float = 256
    rope_theta: float = 1e6
    rope_local_base_freq: float = 1e4
    rope_factor: float = 1.0
    final_logit_softcapping: float | None = None
    layer_pattern: tuple[bool, ...] = ()
    bos_token_id: int | None = 2
    eos_token_ids: tuple[int, ...] = (1,)
    pad_token_id: int | None = 0

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Dimensions of every decoder layer; they differ in the window only."""
        windows = (self.sliding_window if local else None for local in self.layer_pattern)
        return tuple(
            Layer(self.num_attention_heads, self.num_key_value_heads, self.head_dim, self.intermediate_size, window)
            for window in windows
        )

    @property
    def layer_embedding(self) -> int:
        """0: Gemma 3 has one embedding for all layers."""
        return 0

    @property
    def streams(self) -> int:
        """1: Gemma 3 has a single residual stream."""
        return 1

    @property
    def normed_values(self) -> bool:
        """False: Gemma 3 norms queries and keys only."""
        return False

    @property
    def global_layers(self) -> int:
        """Number of layers that attend to the whole context."""
        return self.layer_pattern.count(False)

    @property
    def rope(self) -> Rope:
        """Rotary position embedding."""
        return Rope(self.rope_theta, self.rope_local_base_freq, self.rope_factor)

    @property
    def period(self) -> int | None:
        """The n for which exactly every n-th layer is global (6 in every published model), None if there is none."""
        for n in range(1, self.num_hidden_layers + 2):
            if self.layer_pattern == pattern(self.num_hidden_layers, n):
                return n
        return None

    @property
    def layer_parameters(self) -> tuple[int, ...]:
        """Number of weights in the matrices of every decoder layer."""
        hidden = self.hidden_size
        return tuple(
            2 * hidden * (layer.query_width + layer.kv_width) + 3 * hidden * layer.ffn for layer in self.layers
        )

    @property
    def parameters(self) -> int:
        """Number of weights of the text model, a tied embedding counted once."""
        norms = 4 * self.hidden_size + 2 * self.head_dim
        matrices = sum(self.layer_parameters)
        return self.vocab_size * self.hidden_size + matrices + self.num_hidden_layers * norms + self.hidden_size


KEYS = ConfigKeys(
    read=frozenset(
        (
            *(field.name for field in fields(TextConfig)),
            *("eos_token_id", "is_causal", "layer_types", "rope_parameters", "rope_scaling", "sliding_window_pattern"),
            *("_sliding_window_pattern", "use_bidirectional_attention"),
        )
    ),
    fixed={
        "hidden_activation": GELU_TANH,
        "attention_bias": (False,),
        "attn_logit_softcapping": (None,),
        "partial_rotary_factor": PLAIN_ROPE,
        "per_layer_config": (None, {}),
    },
    harmless=frozenset(("boi_token_index", "eoi_token_index", "image_token_index", "mm_tokens_per_image")),
)
"""Keys of Gemma3TextConfig; attention dropout, initial weights and caches are harmless everywhere."""


def pattern(layers: int, period: int) -> tuple[bool, ...]:
    """`layer_pattern` of a model in which every `period`-th layer is global."""
    return tuple((i + 1) % period != 0 for i in range(layers))


def from_hf(config: Mapping[str, Any], *, bidirectional: bool = False) -> TextConfig:
    """Read a config.json of transformers 4 or 5, text-only or with vision.

    Args:
        config: Content of the file.
        bidirectional: Whether tokens may attend to later ones.

    Raises:
        InputError: A value is of the wrong kind, or no Gemma 3 runtime can run this variant.
    """
    merged = hf_values.text_side(config)
    KEYS.check(config, "Gemma 3")
    if (merged.get("use_bidirectional_attention") and not bidirectional) or merged.get("is_causal") is False:
        raise InputError(
            "config.json: attention is bidirectional, an embedding model; only causal models are supported"
        )
    checked = hf_values.fill(
        TextConfig,
        merged | _rope(merged),
        "config.json: ",
        from_zero=("bos_token_id", "pad_token_id"),
        skip=_SPECIAL,
    )
    layers = checked.num_hidden_layers
    hf_values.check_layers(layers, checked.num_attention_heads, checked.num_key_value_heads)
    local = _layer_pattern(merged, layers)
    if any(local) and "sliding_window" in merged and merged["sliding_window"] is None:
        raise InputError(f"config.json: sliding_window is null, but {sum(local)} layers have a sliding window")
    return replace(checked, layer_pattern=local, eos_token_ids=hf_values.ends(config))


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rope fields from `rope_parameters` (transformers 5) or from the older keys."""
    values: dict[str, Any] = {}
    modern = config.get("rope_parameters")
    old = config.get("rope_scaling")
    for name, value in (("rope_parameters", modern), ("rope_scaling", old)):
        if value is not None and not isinstance(value, Mapping):
            raise InputError(f"config.json: {name} is {value!r:.60}, not an object")
    scaling: Mapping[str, Any] = old if isinstance(old, Mapping) else {}
    if isinstance(modern, Mapping):
        full = modern.get("full_attention", modern)
        local = modern.get("sliding_attention") or {}
        if not isinstance(full, Mapping) or not isinstance(local, Mapping):
            raise InputError("config.json: rope_parameters is not an object of objects")
        if full.get("rope_theta") is not None:
            values["rope_theta"] = full["rope_theta"]
        if local.get("rope_theta") is not None:
            values["rope_local_base_freq"] = local["rope_theta"]
        if _rope_type(local) != "default":
            raise InputError(f"config.json: rope type {_rope_type(local)!r} on sliding-window layers is not supported")
        scaling = {**full, **scaling}
        hf_values.check_whole_rope({"rope_parameters.full_attention": full, "rope_parameters.sliding_attention": local})
    hf_values.check_whole_rope({"rope_scaling": scaling})
    kind = _rope_type(scaling)
    if kind == "linear":
        values["rope_factor"] = scaling.get("factor")
        if values["rope_factor"] is None:
            raise InputError("config.json: rope scaling is linear and has no factor")
    elif kind != "default":
        where = "rope_parameters" if old is None else "rope_scaling"
        raise InputError(
            f"config.json: {where} has rope type {kind!r:.60}, which changes what the model computes",
            "use a checkpoint with default or linear: runtimes compute Gemma 3 in no other way",
        )
    return values


def _rope_type(scaling: Mapping[str, Any]) -> Any:
    return scaling.get("rope_type") or scaling.get("type") or "default"


def _layer_pattern(config: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    local = hf_values.local_layers(config, layers)
    if local is not None:
        return local
    period = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    if not isinstance(period, int) or period < 1:
        raise InputError(f"config.json: sliding_window_pattern is {period!r}, not a positive integer")
    return pattern(layers, period)


def to_hf(config: TextConfig, dtype: str) -> dict[str, Any]:
    """config.json of a text-only folder.

    Rope is spelled as transformers 4 does, which transformers 5, mlx-lm and vLLM all read; mlx-lm ignores
    `rope_parameters` and would lose the factor.

    Args:
        config: Dimensions of the model.
        dtype: torch's name of the stored dtype, such as `bfloat16`.
    """
    plain = (
        "bos_token_id final_logit_softcapping head_dim hidden_size intermediate_size max_position_embeddings "
        "num_attention_heads num_hidden_layers num_key_value_heads pad_token_id query_pre_attn_scalar rms_norm_eps "
        "rope_local_base_freq rope_theta sliding_window vocab_size"
    )
    document: dict[str, Any] = {
        **{name: getattr(config, name) for name in plain.split()},
        **hf_values.text_keys(config.layer_pattern, config.eos_token_ids, dtype),
        "architectures": [TEXT],
        "attn_logit_softcapping": None,
        "model_type": TEXT_MODEL_TYPE,
        "rope_scaling": {"rope_type": "linear", "factor": config.rope_factor} if config.rope_factor != 1 else None,
    }
    if config.period is not None:
        document["sliding_window_pattern"] = config.period
    return dict(sorted(document.items()))


def check_mlx(config: TextConfig) -> None:
    """Refuse a model that MLX's runtimes would compute otherwise: they read a period of global layers, no list.

    Raises:
        InputError: Global layers come at no period, or logits are capped.
    """
    if config.period is None:
        raise InputError("layer_types has no period, and MLX's runtimes read no other pattern", _ELSEWHERE)
    if config.final_logit_softcapping is not None:
        cap = f"final_logit_softcapping is {config.final_logit_softcapping:g}"
        raise InputError(f"{cap}, but MLX's runtimes cap no logits of Gemma 3", _ELSEWHERE)


_ELSEWHERE = "write gguf or safetensors"


def nested(document: dict[str, Any]) -> dict[str, Any]:
    """config.json as it is: runtimes have a layout of its own for text-only Gemma 3."""
    return document


def with_vocabulary(config: TextConfig, size: int) -> TextConfig:
    """The config with another number of embedding rows."""
    return replace(config, vocab_size=size)
