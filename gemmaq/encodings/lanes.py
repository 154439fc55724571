"""Working memory of the searches for scales: many groups side by side, a lane each.

It is one array with constant offsets, used in loops of constant length: so the compiler knows that no parts of it
overlap and that no index is negative, and vectorises.
"""

from __future__ import annotations

LANES = 64
"""Groups searched together: enough to vectorise, few enough for the L1 cache."""
LARGEST = 64
"""Weights of the largest group."""
WEIGHTS = LARGEST * LANES
"""Offset of the importances: weight i of the group in lane g is at i * LANES + g, its importance WEIGHTS further on."""
ROOM = 3 * WEIGHTS + 8 * LANES
"""Numbers of the whole array; the part behind the importances belongs to the search."""
