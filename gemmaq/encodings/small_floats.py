"""Floating point numbers of four and eight bits, as data: E2M1, E4M3 and E5M2 for weights, E4M3 and E8M0 for scales.

Source: OCP Microscaling Formats (MX) Specification 1.0, and OCP 8-bit Floating Point Specification 1.0.
"""

from __future__ import annotations

import math


def _levels(exponent_bits: int, mantissa_bits: int) -> tuple[float, ...]:
    """The number of every code: sign, exponent, mantissa, the first exponent for subnormal numbers, no infinity."""
    bias, steps = (1 << (exponent_bits - 1)) - 1, 1 << mantissa_bits
    positive = [
        (code % steps / steps + (code >= steps)) * 2.0 ** (max(1, code // steps) - bias)
        for code in range(1 << (exponent_bits + mantissa_bits))
    ]
    return (*positive, *(-number for number in positive))


E2M1 = _levels(2, 1)
"""0, 0.5, 1, 1.5, 2, 3, 4, 6 and the same below zero."""
_E4M3 = _levels(4, 3)
E4M3 = (*_E4M3[:127], math.nan, *_E4M3[128:255], math.nan)
"""Multiples of 2^-9 up to 448, and NaN where all bits but the sign are set."""
_E5M2 = _levels(5, 2)[:124]
E5M2 = (*_E5M2, math.inf, *[math.nan] * 3, *(-number for number in _E5M2), -math.inf, *[math.nan] * 3)
"""Multiples of 2^-16 up to 57344, infinity and NaN."""
E8M0 = (*(2.0 ** (code - 127) for code in range(255)), math.nan)
"""Powers of two, without sign."""

SCALES = {"e4m3": E4M3, "e8m0": E8M0}
"""Number type of scales that take a byte -> the number of every byte."""
