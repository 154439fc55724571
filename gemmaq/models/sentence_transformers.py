"""Files of sentence-transformers beside a text model that embeds: what its modules are called, and their settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MODULES = "modules.json"
"""List of the modules that a text goes through, in order."""
FILES = (MODULES, "config_sentence_transformers.json", "sentence_bert_config.json")
"""Files beside config.json; every other module has a folder of its own."""
POOLING = {"mean": 1, "cls": 2, "last": 3}
"""How the vectors of a text's tokens become one -> number in the GGUF key pooling_type."""

_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_DENSE = re.compile(r"([23])_Dense")


def is_module(path: str) -> bool:
    """Whether a path is that of a module's settings or weights, as in `1_Pooling/config.json`."""
    return bool(re.fullmatch(r"\d+_\w+/(config\.json|model\.safetensors)", path))


def is_head(path: str) -> bool:
    """Whether a path is that of the weights of a dense module."""
    return path.endswith("_Dense/model.safetensors")


def kind(entry: Mapping[str, Any]) -> str:
    """Kind of a module by its entry in modules.json: `Pooling`, `Dense` and the like."""
    return str(entry.get("type", "")).rpartition(".")[2]


def pooling(settings: Mapping[str, Any]) -> str | None:
    """Key of POOLING for the config.json of a pooling module; None for a kind that GGUF has no number for."""
    named = settings.get("pooling_mode")
    spelled = "last" if named == "lasttoken" else named
    modes = [mode for key, mode in _MODES.items() if settings.get(key)]
    return modes[0] if modes else (spelled if spelled in POOLING else None)


def head_name(folder: str) -> str | None:
    """Canonical name of the matrix of a dense module by its folder; None for one that GGUF has no name for."""
    match = _DENSE.fullmatch(folder)
    return f"dense_{match[1]}.weight" if match else None


def head_keys(name: str, shape: tuple[int, ...]) -> dict[str, int]:
    """GGUF keys of a dense head, without the architecture: the width of its input and of its output."""
    stem = name.removesuffix(".weight")
    return {f"{stem}_feat_in": shape[1], f"{stem}_feat_out": shape[0]}
