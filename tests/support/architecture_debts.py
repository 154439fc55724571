"""What the house still owes its rules. Each entry goes when its fault is mended: a list only ever shrinks."""

from __future__ import annotations

DEBTS: dict[str, tuple[str, ...]] = {}
