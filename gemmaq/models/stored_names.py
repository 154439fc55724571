"""Names of tensors as programs that train leave them: wrapped in names of modules that are no part of a model."""

from __future__ import annotations

import re

_WRAPPERS = frozenset((
    "_orig_mod", "module", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module", "base_layer",
))  # fmt: skip
"""Modules of torch.compile, DataParallel and DDP, activation checkpointing, FSDP, Lightning with DeepSpeed, PEFT."""
_PEFT = re.compile(r"(^|\.)base_model\.model\.")
_ADAPTERS = re.compile(
    r"\.(lora_(A|B|embedding_A|embedding_B|magnitude_vector)|modules_to_save|original_module|ia3_l|hada_w1_a)(\.|$)"
)
_OUTER = re.compile(r"((language_)?model\.)*")


def unwrapped(name: str) -> str:
    """Name of a tensor without the names of modules that wrap a model or parts of it."""
    inner = _PEFT.sub(r"\1", name)
    return ".".join(part for part in inner.split(".") if part not in _WRAPPERS)


def wrapping(name: str) -> tuple[str, ...]:
    """Names of the modules that `unwrapped` takes out of a name, in order."""
    found = ("base_model.model",) if _PEFT.search(name) else ()
    return (*found, *(part for part in name.split(".") if part in _WRAPPERS))


def is_adapter(name: str) -> bool:
    """Whether a tensor belongs to an adapter that has not been merged into the weights it was trained for."""
    return _ADAPTERS.search(name) is not None


def bare(name: str) -> str:
    """Name of a tensor without wrappers and without what precedes the text model, to compare names of two layouts."""
    return _OUTER.sub("", unwrapped(name), count=1)


def is_head(name: str) -> bool:
    """Whether a tensor is an output head, which a model with a tied head need not store."""
    return bare(name) == "lm_head.weight"
