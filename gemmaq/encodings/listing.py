"""Names of types in messages and help, where types that differ only in bits and group share an entry."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FAMILY = re.compile(r"(affine|mixed_)(\d(?:_\d)?)((?:-g\d+)?)")


def listed(names: Iterable[str]) -> list[str]:
    """Names in their order; all of MLX's affine types are one, `affineN (N: 2 3 4; -g64 -g128)`."""
    entries: dict[str, tuple[dict[str, str], dict[str, None]]] = {}
    for name in names:
        match = _FAMILY.fullmatch(name)
        stem, bits, suffix = match.groups() if match else (name, "", "")
        members, suffixes = entries.setdefault(stem, ({}, {}))
        members[bits] = name
        if suffix:
            suffixes[suffix] = None
    return [_entry(stem, members, suffixes) for stem, (members, suffixes) in entries.items()]


def _entry(stem: str, members: dict[str, str], suffixes: dict[str, None]) -> str:
    if len(members) == 1 and len(suffixes) <= 1:
        return next(iter(members.values()))
    return f"{stem}N (N: {'; '.join(filter(None, (' '.join(members), ' '.join(suffixes))))})"
