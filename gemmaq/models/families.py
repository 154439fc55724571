"""The families that gemmaq knows, and which of them a checkpoint belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gemmaq.errors import InputError, UsageError
from gemmaq.models import gemma3
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family
from gemmaq.models.size import Size

FAMILIES: tuple[Family, ...] = (gemma3.FAMILY,)
"""All families. A new one is a folder of `models/` and an entry here."""


def sizes() -> tuple[Size, ...]:
    """The published sizes of all families."""
    return tuple(size for family in FAMILIES for size in family.sizes)


def of_config(document: Mapping[str, Any]) -> Family:
    """The family of a config.json, by its architecture or model type.

    Raises:
        InputError: No family reads it.
    """
    listed = document.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed else document.get("model_type")
    for family in FAMILIES:
        if name in family.architectures:
            return family
    raise InputError(f"architecture {name or 'unknown'} is not supported", f"supported: {_supported()}")


def of_gguf(keys: Mapping[str, Any]) -> Family:
    """The family of a GGUF file, by its key general.architecture.

    Raises:
        InputError: No family reads it.
    """
    architecture = keys.get("general.architecture")
    for family in FAMILIES:
        if architecture == family.gguf.ARCHITECTURE:
            return family
    known = ", ".join(f"{family.gguf.ARCHITECTURE} ({family.title} text models)" for family in FAMILIES)
    raise InputError(f"GGUF architecture {architecture!r} is not supported", f"supported: {known}")


def _supported() -> str:
    named = (sorted(name for name in family.architectures if name[0].isupper()) for family in FAMILIES)
    return "; ".join(
        f"{' and '.join(classes)} ({family.title})" for classes, family in zip(named, FAMILIES, strict=True)
    )


def kinds() -> tuple[str, ...]:
    """Kinds of tensors (`Place.kind`) of all families, in the order of a table."""
    return tuple(dict.fromkeys(kind for family in FAMILIES for kind in family.names.KINDS))


def of_size(size: Size) -> Family:
    """The family of a published size."""
    return next(family for family in FAMILIES if family.name == size.family)


def short_name(name: str) -> str:
    """Name of a model without the prefix that all sizes of its family share (`gemma-3-27b` -> `27b`)."""
    for family in FAMILIES:
        name = name.removeprefix(_prefix(family))
    return name


def _prefix(family: Family) -> str:
    return family.sizes[0].name.removesuffix(family.sizes[0].label.lower())


def size_by_name(name: str) -> Size | None:
    """The published size that a user means by `27b`, `gemma-3-27b` or `gemma3:27b`; None if there is none."""
    for family in FAMILIES:
        wanted = name.lower().removeprefix(f"{family.organization}/")
        wanted = wanted.removeprefix(f"{family.name}:").removeprefix(_prefix(family))
        for size in family.sizes:
            if size.label.lower() == wanted:
                return size
    return None


def require_size(name: str) -> Size:
    """The published size that a user means.

    Raises:
        UsageError: There is no such size.
    """
    size = size_by_name(name)
    if size is None:
        raise UsageError(f"unknown model {name!r}", f"published sizes: {', '.join(size.name for size in sizes())}")
    return size


def size_label(family: Family, config: TextConfig) -> str:
    """Size label of a model with these dimensions: the published one, else from its parameter count."""
    for size in family.sizes:
        same = size.config
        if (config.num_hidden_layers, config.hidden_size) == (same.num_hidden_layers, same.hidden_size):
            return size.label
    count = config.parameters
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= limit:
            digits = f"{count / limit:.1f}".removesuffix(".0") if count < 10 * limit else f"{count / limit:.0f}"
            return digits + unit
    return str(count)


def official_organization(name: str) -> str | None:
    """Organization of the publisher whose repository has this name; None if it is no official name."""
    for family in FAMILIES:
        if re.fullmatch(family.official, name, re.IGNORECASE):
            return family.organization
    return None
