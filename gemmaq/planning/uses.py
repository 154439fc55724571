"""What a type is good for, in a few words for the model card, and which of several is the one to start with."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gemmaq.encodings import ENCODINGS
from gemmaq.planning.mixtures import MIXTURES

_USES = {
    "f32": "every number of the source, to convert from",
    "f16": "to convert from, or where there is room for 16 bits",
    "bf16": "to convert from, or where there is room for 16 bits",
    "q8_0": "nearly the original",
    "q6_k": "very close to the original",
    "q5_k_m": "close to the original",
    "q4_k_m": "a good default",
    "q4_0": "the type of QAT checkpoints",
    "iq4_xs": "the smallest with little loss",
    "iq4_nl": "as small as Q4_0, with less loss",
    "mxfp4": "4-bit floating point, made for hardware that computes in it",
    "nvfp4": "4-bit floating point, made for hardware that computes in it",
    "mxfp8": "8-bit floating point, made for hardware that computes in it",
    "fp8": "8-bit floating point, made for hardware that computes in it",
}
"""Type or mixture -> what it is for, where its bits do not say all of it."""

_ON_CPUS = {"q4_0": "fast on ARM CPUs"}
"""Type -> what else it is good for where a CPU computes."""

_BY_BITS = (
    (16, "where there is room for 16 bits"),
    (8, "nearly the original"),
    (6, "very close to the original"),
    (5, "close to the original"),
    (4, "small with little loss"),
    (3, "where nothing larger fits"),
    (0, "only where nothing else fits"),
)
"""Least bits of a code, or of a weight where codes of grids take less -> what types with so many are for."""

_CHOSEN = re.compile(r"(\d+\.\d\d)bpw")
"""Label of types that were chosen tensor by tensor: their bits per weight."""

_FIRST = (
    "q4_k_m", "q4_k_s", "iq4_xs", "q5_k_m", "q5_k_s", "iq4_nl", "q4_0", "q4_1", "q5_0", "q5_1", "affine4", "affine5",
    "q6_k", "q8_0",
)  # fmt: skip
"""Types to start with, the best balance of size and loss first."""

_ON_GRID = "q4_0"
"""The type that holds the grid of QAT checkpoints as it is."""


def use_of(label: str, body: str, *, cpus: bool = True) -> str:
    """What a model in a type is for.

    Args:
        label: the type or mixture, as file names show it.
        body: name of the encoding of the layers' matrices.
        cpus: whether it may run on a CPU.
    """
    encoding, chosen = ENCODINGS[body], _CHOSEN.fullmatch(label)
    stored = 8 * encoding.block_bytes / max(1, encoding.block)
    bits = min(encoding.bits, stored) if encoding.bits and encoding.block else encoding.bits or stored
    if chosen is not None:
        bits = float(chosen[1])
    use = _USES.get(label.lower()) or next(text for least, text in _BY_BITS if bits >= least)
    more = _ON_CPUS.get(label.lower()) if cpus else None
    return f"{use}, and {more}" if more else use


def recommended(labels: Iterable[str], *, on_grid: bool) -> str:
    """The type to start with, of several: as file names show them, the largest first.

    Args:
        labels: the types or mixtures.
        on_grid: whether the grid of a QAT checkpoint was recovered.
    """
    there = {label.lower(): label for label in labels}
    order = (*((_ON_GRID,) if on_grid else ()), *_FIRST, *MIXTURES, *ENCODINGS)
    return next((there[name] for name in order if name in there), next(iter(there.values())))
