"""Numbers in the metadata of GGUF files, checked as they are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from gemmaq.errors import InputError

TOKENIZERS_WITH_MERGES = ("gpt2", "gemma4")
"""Values of tokenizer.ggml.model for tokenizers that join pieces by merges."""
MOST_LAYERS = 4096
"""Number of layers beyond which a file is taken for broken."""


def read(
    keys: Mapping[str, Any],
    architecture: str,
    *,
    integers: Mapping[str, str],
    floats: Mapping[str, str],
    required: Collection[str],
    from_zero: Collection[str] = (),
) -> dict[str, Any]:
    """Fields of a config by their names.

    Args:
        keys: All keys of the file.
        architecture: In front of every key, with a dot.
        integers: Key -> field of whole numbers; one field is `num_hidden_layers`.
        floats: Key -> field of other numbers; they are rounded to 7 digits, which FP32 holds.
        required: Keys that must be there.
        from_zero: Keys whose number may be 0.

    Raises:
        InputError: A key is missing or of the wrong kind.
    """
    values: dict[str, Any] = {}
    for names, kind in ((integers, int), (floats, float)):
        for key, name in names.items():
            value = keys.get(f"{architecture}.{key}")
            if value is None:
                if key in required:
                    raise InputError(f"GGUF key {architecture}.{key} is missing")
                continue
            is_number = isinstance(value, (int, kind)) and not isinstance(value, bool)
            if not is_number or not (
                0 < value < (1 << 31 if kind is int else 1e12) or (value == 0 and key in from_zero)
            ):
                raise InputError(f"GGUF key {architecture}.{key} is {value!r:.60}")
            values[name] = value if kind is int else float(f"{value:.7g}")
    if values["num_hidden_layers"] > MOST_LAYERS:
        raise InputError(f"GGUF key {architecture}.block_count is {values['num_hidden_layers']}")
    return values


def per_layer(keys: Mapping[str, Any], key: str, layers: int, *, endless: bool = False) -> list[Any]:
    """A key that has one number for all layers, or one for each.

    Args:
        keys: All keys of the file.
        key: The key.
        layers: Number of layers.
        endless: Whether a number may be infinite.

    Raises:
        InputError: It is missing or of the wrong kind.
    """
    value = keys.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 31:
        return [value] * layers
    numbers = list(value) if value is not None and hasattr(value, "__len__") else []
    if isinstance(value, str) or len(numbers) != layers:
        raise InputError(f"GGUF key {key} does not fit {layers} layers")
    if not all(
        isinstance(number, (int, float, np.number, np.bool_))
        and (abs(float(number)) < 1 << 31 or (endless and np.isinf(number)))
        for number in numbers
    ):
        raise InputError(f"GGUF key {key} holds what is no number of a layer")
    return [number.item() if hasattr(number, "item") else number for number in numbers]


def rope_factor(keys: Mapping[str, Any], architecture: str) -> float:
    """Linear scaling of positions, 1.0 for none.

    Raises:
        InputError: Positions are scaled in another way.
    """
    kind, factor = (keys.get(f"{architecture}.rope.{key}") for key in ("scaling.type", "scaling.factor"))
    if factor is None:
        factor = keys.get(f"{architecture}.rope.scale_linear")
    if kind == "none":
        return 1.0
    if kind not in (None, "linear"):
        raise InputError(f"GGUF key {architecture}.rope.scaling.type is {kind!r:.60}", "only linear scaling is read")
    if factor is None or factor == 0:
        return 1.0
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < 1e12:
        raise InputError(f"GGUF key {architecture}.rope.scaling.factor is {factor!r:.60}")
    return float(f"{factor:.7g}")


def unscaled(keys: Mapping[str, Any], architecture: str) -> None:
    """Refuse a model that scales positions, of a family that has no such models.

    Raises:
        InputError: It does.
    """
    if (factor := rope_factor(keys, architecture)) != 1:
        raise InputError(f"GGUF key {architecture}.rope.scaling.factor is {factor:g}", "such models have none")


def colors(keys: Mapping[str, Any]) -> dict[str, Any]:
    """`image_mean` and `image_std` of an mmproj file where they are three numbers, one for each color, of 7 digits."""
    found = {}
    for name in ("image_mean", "image_std"):
        values = keys.get(f"clip.vision.{name}")
        if isinstance(values, (tuple, np.ndarray)) and len(values) == 3 and np.isfinite(values).all():
            found[name] = tuple(float(f"{value:.7g}") for value in values)
    return found


def token_ids(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Ids of special tokens by the fields of a config."""
    bos, eos, pad = (keys.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos", "padding"))
    return {"bos_token_id": bos, "eos_token_ids": (1 if eos is None else eos,), "pad_token_id": pad}
