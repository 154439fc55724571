"""What several families have alike in config.json: values are checked as they are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from gemmaq.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Filled = TypeVar("Filled", bound="DataclassInstance")

_KINDS = ("sliding_attention", "full_attention")
_MOST_LAYERS = 4096
"""Number of layers beyond which a file is taken for broken."""


def text_side(document: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the text model: those of `text_config`, where there is one, before those beside it."""
    text = document.get("text_config")
    return {**document, **text} if isinstance(text, Mapping) else dict(document)


def is_count(value: Any, least: int = 1) -> bool:
    """Whether a value is a whole number from `least` on that 31 bits hold."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 1 << 31


def is_number(value: Any) -> bool:
    """Whether a value is a number, whole or not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def ends(document: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids of the tokens that end generation; what is said of the whole model counts before the text side's.

    Raises:
        InputError: They are no ids.
    """
    value = document.get("eos_token_id") or text_side(document).get("eos_token_id", 1)
    ids = tuple(value) if isinstance(value, list) else (1 if value is None else value,)
    if not ids or not all(is_count(at, 0) for at in ids):
        raise InputError(f"config.json: eos_token_id is {value!r:.60}")
    return ids


def local_layers(text: Mapping[str, Any], layers: int) -> tuple[bool, ...] | None:
    """Whether each layer has a sliding window by `layer_types`, None if that is not there.

    Raises:
        InputError: It does not name the attention of every layer.
    """
    types = text.get("layer_types")
    if types is None:
        return None
    if not isinstance(types, list) or len(types) != layers or any(kind not in _KINDS for kind in types):
        raise InputError(f"config.json: layer_types does not name the attention of {layers} layers")
    return tuple(kind == "sliding_attention" for kind in types)


def rope(text: Mapping[str, Any], *, local: str, everywhere: str) -> dict[str, Mapping[str, Any]]:
    """Entries of `rope_parameters` by kind of attention; empty if it is not there.

    Args:
        text: Keys of the text model.
        local: Type of the rotary embedding in layers with a sliding window.
        everywhere: That of all others.

    Raises:
        InputError: An entry is missing, or of another type.
    """
    parameters = text.get("rope_parameters")
    entries: dict[str, Mapping[str, Any]] = {}
    for kind, usual in zip(_KINDS, (local, everywhere), strict=True) if parameters is not None else ():
        entry = parameters.get(kind) if isinstance(parameters, Mapping) else None
        if not isinstance(entry, Mapping):
            raise InputError(f"config.json: rope_parameters has no object {kind}")
        if entry.get("rope_type", usual) != usual:
            raise InputError(
                f"config.json: rope type {entry['rope_type']!r:.60} of {kind} is not supported",
                f"the type that runtimes have there is {usual}",
            )
        if usual != "default" and entry.get("factor") not in (None, 1):
            raise InputError(f"config.json: rope factor of {kind} is {entry['factor']!r:.60}; no runtime has one there")
        if usual == "default":
            check_whole_rope({f"rope_parameters.{kind}": entry})
        entries[kind] = entry
    return entries


def check_whole_rope(entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse rotary embeddings of a part of each head, by the name of the object that says so.

    Raises:
        InputError: There is one.
    """
    for name, entry in entries.items():
        if entry.get("partial_rotary_factor") not in (None, 1):
            value = entry["partial_rotary_factor"]
            raise InputError(f"config.json: partial_rotary_factor of {name} is {value!r:.60}, not 1")


def fill(
    kind: type[Filled],
    values: Mapping[str, Any],
    where: str,
    *,
    from_zero: Collection[str] = (),
    skip: Collection[str] = (),
) -> Filled:
    """A dataclass of dimensions from values by field name; defaults where a value is missing or null.

    Whole numbers are at least 1, other numbers positive, and a tuple has as many whole numbers as its default.

    Args:
        kind: The dataclass; its module has annotations as text.
        values: The values, and any others.
        where: What an error says before the name of a field, such as `config.json: `.
        from_zero: Fields of whole numbers that may be 0.
        skip: Fields that keep their defaults whatever the values say.

    Raises:
        InputError: A value is of the wrong kind.
    """
    found: dict[str, Any] = {}
    for field in fields(kind):
        name, declared, value = field.name, str(field.type), values.get(field.name)
        if value is None or name in skip:
            continue
        if declared == "bool":
            good = isinstance(value, bool)
        elif declared.startswith("int"):
            good = is_count(value, 0 if name in from_zero else 1)
        elif isinstance(field.default, tuple):
            good = isinstance(value, (list, tuple)) and len(value) == len(field.default) and all(map(is_count, value))
            value = tuple(value) if good else value
        else:
            good = is_number(value) and 0 < value < 1e12
        if not good:
            raise InputError(f"{where}{name} is {value!r:.60}")
        found[name] = value
    return kind(**found)


def colors(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`image_mean` and `image_std` in the settings of a processor, as far as they are there: a number for each color.

    Raises:
        InputError: They are no three numbers.
    """
    found = {}
    for name in ("image_mean", "image_std"):
        value = settings.get(name)
        if value is None:
            continue
        if not isinstance(value, list) or len(value) != 3 or not all(is_number(v) and abs(v) < 1e12 for v in value):
            raise InputError(f"the processor has {name} {value!r:.60}")
        found[name] = tuple(map(float, value))
    return found


def check_layers(layers: int, heads: int, kv_heads: int) -> None:
    """Refuse numbers of layers, heads and key heads that no decoder has.

    Raises:
        InputError: There are too many layers, or heads cannot share key heads.
    """
    if layers > _MOST_LAYERS:
        raise InputError(f"config.json: num_hidden_layers is {layers}")
    if heads % kv_heads:
        raise InputError("config.json: num_attention_heads is not a multiple of num_key_value_heads")


def text_keys(local: Collection[bool], ends: tuple[int, ...], dtype: str) -> dict[str, Any]:
    """Keys of a text-only config.json that do not depend on the family.

    Args:
        local: Whether a layer has a sliding window, one flag per layer.
        ends: Ids of all tokens that end generation.
        dtype: torch's name of the stored dtype, such as `bfloat16`.
    """
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "eos_token_id": ends[0] if len(ends) == 1 else list(ends),
        "hidden_activation": "gelu_pytorch_tanh",
        "initializer_range": 0.02,
        "layer_types": [_KINDS[0] if is_local else _KINDS[1] for is_local in local],
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
        "use_cache": True,
    }


def nested(document: Mapping[str, Any], architecture: str, model_type: str) -> dict[str, Any]:
    """config.json in the layout of models with towers, from that of a text-only folder."""
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "eos_token_id": document["eos_token_id"],
        "text_config": {key: value for key, value in document.items() if key not in ("architectures", "torch_dtype")},
        "tie_word_embeddings": document["tie_word_embeddings"],
        "torch_dtype": document["torch_dtype"],
        "vocab_size": document["vocab_size"],
    }
