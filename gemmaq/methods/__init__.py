"""Which code each weight gets: one file per method.

A method takes f32 rows and an encoding and returns what the encoding packs.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from gemmaq.errors import UsageError

if TYPE_CHECKING:
    from gemmaq.encodings import F32, Encoding, Values

NAMES = ("nearest",)

Method = Callable[["F32", "Encoding"], "Values"]


def find(name: str) -> Method:
    """The method of that name: f32 [rows, columns], encoding -> values.

    Raises:
        UsageError: there is none.
    """
    if name.lower() not in NAMES:
        raise UsageError(f"unknown method {name!r}", f"known methods: {', '.join(NAMES)}")
    method: Method = import_module(f"{__name__}.{name.lower()}").quantize
    return method
