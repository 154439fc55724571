"""config.json of Gemma 3: every spelling is read, and the one that all runtimes understand is written.

Defaults are those of transformers' Gemma3TextConfig: published files rely on them (that of 4B names neither heads nor
head_dim).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from gemmaq.errors import InputError
from gemmaq.models.config import Layer, Rope
from gemmaq.models.gemma3 import vision
from gemmaq.models.vision_config import VisionConfig

TEXT = "Gemma3ForCausalLM"
MULTIMODAL = "Gemma3ForConditionalGeneration"
MODEL_TYPE, TEXT_MODEL_TYPE = "gemma3", "gemma3_text"
ARCHITECTURES = (TEXT, MULTIMODAL, MODEL_TYPE, TEXT_MODEL_TYPE)
"""Class names and model types of config.json that are read."""
_SPELLED = {"eos_token_ids": "eos_token_id", "rope_factor": "the factor of rope scaling"}
"""Field -> its name in errors, where config.json has it under another name."""


@dataclass(frozen=True, slots=True)
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

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Dimensions of every decoder layer; they differ in the window only."""
        windows = (self.sliding_window if local else None for local in self.layer_pattern)
        return tuple(
            Layer(self.num_attention_heads, self.num_key_value_heads, self.head_dim, self.intermediate_size, window)
            for window in windows
        )

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


def pattern(layers: int, period: int) -> tuple[bool, ...]:
    """`layer_pattern` of a model in which every `period`-th layer is global."""
    return tuple((i + 1) % period != 0 for i in range(layers))


def from_hf(config: Mapping[str, Any]) -> TextConfig:
    """Read a config.json of transformers 4 or 5, text-only or with vision.

    Raises:
        InputError: A value is of the wrong kind, or no Gemma 3 runtime can run this variant.
    """
    text = config.get("text_config")
    merged = {**config, **text} if isinstance(text, Mapping) else dict(config)
    if merged.get("attention_bias"):
        raise InputError("config.json: attention_bias is true; no Gemma 3 runtime has attention biases")
    if merged.get("attn_logit_softcapping") is not None:
        raise InputError("config.json: attn_logit_softcapping is set; Gemma 3 has none, this looks like Gemma 2")
    if merged.get("use_bidirectional_attention") or merged.get("is_causal") is False:
        raise InputError(
            "config.json: attention is bidirectional, an embedding model; only causal models are supported"
        )
    values = {f.name: merged[f.name] for f in fields(TextConfig) if merged.get(f.name) is not None}
    values.update(_rope(merged))
    eos = config.get("eos_token_id") or merged.get("eos_token_id", 1)  # the whole model's before the text side's
    values["eos_token_ids"] = tuple(eos) if isinstance(eos, list) else (1 if eos is None else eos,)
    layers = values.get("num_hidden_layers", 26)
    values.pop("layer_pattern", None)
    return replace(_checked(values), layer_pattern=_layer_pattern(merged, layers))


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
    kind = _rope_type(scaling)
    if kind == "linear":
        values["rope_factor"] = scaling.get("factor")
    elif kind != "default":
        raise InputError(f"config.json: rope type {kind!r} is not supported", "Gemma 3 uses default or linear")
    return values


def _rope_type(scaling: Mapping[str, Any]) -> Any:
    return scaling.get("rope_type") or scaling.get("type") or "default"


def _layer_pattern(config: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    types = config.get("layer_types")
    if isinstance(types, list):
        if len(types) != layers or any(kind not in ("sliding_attention", "full_attention") for kind in types):
            raise InputError(f"config.json: layer_types does not name the attention of {layers} layers")
        return tuple(kind == "sliding_attention" for kind in types)
    period = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    if not isinstance(period, int) or period < 1:
        raise InputError(f"config.json: sliding_window_pattern is {period!r}, not a positive integer")
    return pattern(layers, period)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _checked(values: dict[str, Any]) -> TextConfig:
    """A TextConfig from field values; raises InputError for a value of the wrong kind or out of range."""
    defaults = {f.name: f.default for f in fields(TextConfig)}
    for name, value in values.items():
        default = defaults[name]
        if name in ("layer_pattern", "eos_token_ids"):
            good = bool(value) and all(_is_id(item) for item in value)
        elif name in ("bos_token_id", "pad_token_id"):
            good = _is_id(value)
        elif isinstance(default, int) and not isinstance(value, bool):
            whole = isinstance(value, int) or name == "query_pre_attn_scalar"
            good = isinstance(value, (int, float)) and whole and 0 < value < 1 << 31
        else:
            good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e12
        if not good:
            raise InputError(f"config.json: {_SPELLED.get(name, name)} is {value!r:.60}")
    config = TextConfig(**values)
    if config.num_hidden_layers > 4096:
        raise InputError(f"config.json: num_hidden_layers is {config.num_hidden_layers}")
    if config.num_attention_heads % config.num_key_value_heads:
        raise InputError("config.json: num_attention_heads is not a multiple of num_key_value_heads")
    return config


def to_hf(config: TextConfig, dtype: str) -> dict[str, Any]:
    """config.json of a text-only folder.

    Rope is spelled as transformers 4 does, which transformers 5, mlx-lm and vLLM all read; mlx-lm ignores
    `rope_parameters` and would lose the factor.

    Args:
        config: Dimensions of the model.
        dtype: torch's name of the stored dtype, such as `bfloat16`.
    """
    eos = config.eos_token_ids
    result: dict[str, Any] = {
        "architectures": [TEXT],
        "model_type": TEXT_MODEL_TYPE,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos[0] if len(eos) == 1 else list(eos),
        "final_logit_softcapping": config.final_logit_softcapping,
        "hidden_activation": "gelu_pytorch_tanh",
        "initializer_range": 0.02,
        "layer_types": ["sliding_attention" if local else "full_attention" for local in config.layer_pattern],
        "pad_token_id": config.pad_token_id,
        "rope_scaling": {"rope_type": "linear", "factor": config.rope_factor} if config.rope_factor != 1 else None,
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    plain = (
        "head_dim hidden_size intermediate_size max_position_embeddings num_attention_heads num_hidden_layers "
        "num_key_value_heads query_pre_attn_scalar rms_norm_eps rope_local_base_freq rope_theta "
        "sliding_window vocab_size"
    )
    result.update({name: getattr(config, name) for name in plain.split()})
    if config.period is not None:
        result["sliding_window_pattern"] = config.period
    return dict(sorted(result.items()))


def with_vision(document: dict[str, Any], config: TextConfig, vision_config: VisionConfig) -> dict[str, Any]:
    """config.json of a model with vision, from that of its text side as `to_hf` gives it."""
    text = {key: value for key, value in document.items() if key not in ("architectures", "torch_dtype")}
    return {
        "architectures": [MULTIMODAL],
        "model_type": MODEL_TYPE,
        "eos_token_id": document["eos_token_id"],
        "initializer_range": document["initializer_range"],
        "text_config": text,
        "tie_word_embeddings": document["tie_word_embeddings"],
        "torch_dtype": document["torch_dtype"],
        "vision_config": vision.to_hf(vision_config),
        "vocab_size": config.vocab_size,
        **vision.token_keys(vision_config),
    }


def with_vocabulary(config: TextConfig, size: int) -> TextConfig:
    """The config with another number of embedding rows."""
    return replace(config, vocab_size=size)
