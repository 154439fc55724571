"""The families that gemmaq knows, and which of them a checkpoint belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gemmaq.errors import InputError, unknown
from gemmaq.models import embeddinggemma, gemma3, gemma3n, gemma4, gemma4_drafter, unsupported
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family, architecture
from gemmaq.models.roles import Role
from gemmaq.models.size import Size
from gemmaq.models.slices import Slice

FAMILIES: tuple[Family, ...] = (
    gemma3.FAMILY, gemma4.FAMILY, gemma3n.FAMILY, embeddinggemma.FAMILY, gemma4_drafter.FAMILY,
)  # fmt: skip
"""All families; of two that have sizes of one label, the first is meant by the label alone.

A new one is a folder of `models/` and an entry here.
"""
TODAY = gemma4.FAMILY
"""The family that people run today: its sizes are shown where none are named."""


_OF_CHAT = "-it"
"""What the names of the repositories of chat models end with."""


def sizes() -> tuple[Size, ...]:
    """The published sizes of all families whose models continue texts."""
    return tuple(size for family in FAMILIES if _continues(family) for size in family.sizes)


def drafters() -> tuple[Size, ...]:
    """The published drafters of all families."""
    return tuple(size for family in FAMILIES if family.drafts for size in family.sizes)


def namesakes(size: Size) -> tuple[Size, ...]:
    """Sizes of other families with the same label."""
    return tuple(other for other in sizes() if other.label == size.label and other.family != size.family)


def of_config(document: Mapping[str, Any]) -> Family:
    """The family of a config.json, by its architecture or model type; of several, the one with the most marks.

    Raises:
        InputError: No family reads it; an UnsupportedModelError if it is known by name.
    """
    reading = [family for family in FAMILIES if family.reads(document)]
    if reading:
        return max(reading, key=lambda family: len(family.marks))
    name = architecture(document)
    unsupported.refuse(name)
    raise InputError(f"architecture {name or 'unknown'} is not supported", f"supported: {_supported()}")


def of_gguf(keys: Mapping[str, Any]) -> Family:
    """The family of a GGUF file, by its key general.architecture.

    Raises:
        InputError: No family reads it; an UnsupportedModelError if it is known by name.
    """
    name = keys.get("general.architecture")
    for family in FAMILIES:
        if name == family.gguf.ARCHITECTURE:
            return family
    unsupported.refuse(name)
    known = ", ".join(f"{family.gguf.ARCHITECTURE} ({family.title})" for family in FAMILIES)
    raise InputError(f"GGUF architecture {name!r} is not supported", f"supported: {known}")


def _supported() -> str:
    named = (sorted(name for name in family.architectures if name[0].isupper()) for family in FAMILIES)
    return "; ".join(
        f"{' and '.join(classes)} ({family.title})" for classes, family in zip(named, FAMILIES, strict=True)
    )


def slices(name: str, shape: tuple[int, ...], *, per_expert: bool | None) -> tuple[Slice, ...]:
    """The tensors that a folder stores for a stack of matrices, of whichever family has it, under their names there.

    Args:
        name: Name of the stack in a folder.
        shape: Its shape.
        per_expert: Whether every expert has matrices of its own; None where stacks of experts are stored whole.

    Returns:
        The slices; empty for a tensor that is stored whole.
    """
    for family in FAMILIES:
        canonical = family.names.canonical(name)
        found = family.names.slices(canonical, shape, per_expert=bool(per_expert)) if canonical else ()
        if canonical and found:
            if per_expert is None and family.names.place(canonical).role is Role.EXPERTS:
                return ()
            prefix = name.removesuffix(canonical.removeprefix("model."))
            return tuple(replace(part, name=prefix + part.name.removeprefix("model.")) for part in found)
    return ()


def kinds() -> tuple[str, ...]:
    """Kinds of tensors (`Place.kind`) of all families, in the order of a table: those of towers behind all others."""
    every = dict.fromkeys(kind for family in FAMILIES for kind in family.names.KINDS)
    return tuple(sorted(every, key=lambda kind: kind in ("vision", "audio")))


def of_size(size: Size) -> Family:
    """The family of a published size."""
    return next(family for family in FAMILIES if family.name == size.family)


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Names of models without the prefixes that all sizes of a family share (`gemma-3-27b` -> `27b`).

    They stay as they are if two would be alike then, be it but for capitals.
    """
    short = {}
    for name in names:
        prefixes = [prefix for prefix in map(_prefix, FAMILIES) if prefix and name.lower().startswith(prefix)]
        short[name] = name[max(map(len, prefixes), default=0) :]
    distinct = len({label.lower() for label in short.values()}) == len(short)
    return short if distinct else {name: name for name in short}


def _prefix(family: Family) -> str:
    """What the names of a family's sizes begin with, in lower case; all of it that is not the label."""
    return family.sizes[0].name.lower().removesuffix(family.sizes[0].label.lower()) if family.sizes else ""


def size_by_name(name: str) -> Size | None:
    """The published size that a user means by `27b`, `gemma-3-27b`, `gemma3:27b` or `26b` for 26B-A4B, else None."""
    for family in FAMILIES:
        wanted = name.lower().removeprefix(f"{family.organization}/")
        wanted = wanted.removeprefix(f"{family.name}:").removeprefix(_prefix(family))
        for size in family.sizes:
            label = size.label.lower()
            if wanted in (label, label.partition("-")[0], *size.aliases):
                return size
    return None


def require_size(name: str, published: Sequence[Size] = ()) -> Size:
    """The published size that a user means.

    Raises:
        UsageError: There is no such size; with the names of all that continue texts, or of those given.
    """
    size = size_by_name(name) or size_by_name(re.sub(r"-(it|pt)$", "", name, flags=re.IGNORECASE))
    if size is None:
        raise unknown("model", name, (size.name for size in published or sizes()))
    return size


def size_label(family: Family, config: TextConfig) -> str:
    """Size label of a model with these dimensions: the published one, else from its parameter count.

    Drafters go by their own parameters, their published names by those of the target.
    """
    for size in () if family.drafts else family.sizes:
        same = size.config
        if (config.num_hidden_layers, config.hidden_size) == (same.num_hidden_layers, same.hidden_size):
            return size.label
    count = config.parameters
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= limit:
            digits = f"{count / limit:.1f}".removesuffix(".0") if count < 10 * limit else f"{count / limit:.0f}"
            return digits + unit
    return str(count)


def published_repositories(name: str) -> list[str]:
    """The publishers' repositories that a user may mean by the name alone, or by that of a size (`4b`)."""
    size, organization = size_by_name(name), official_organization(name)
    if size is None:
        return [f"{organization}/{name}"] if organization else []
    meant = (size, *namesakes(size)) if name.lower() == size.label.lower() else (size,)
    return [f"{of_size(each).organization}/{each.name}{_OF_CHAT * _continues(of_size(each))}" for each in meant]


def _continues(family: Family) -> bool:
    """Whether models of a family continue texts by themselves."""
    return not (family.drafts or family.embeds)


def official_organization(name: str) -> str | None:
    """Organization of the publisher whose repository has this name; None if it is no official name."""
    for family in FAMILIES:
        if re.fullmatch(family.official, name, re.IGNORECASE):
            return family.organization
    return None
