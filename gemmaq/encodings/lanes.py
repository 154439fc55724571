"""Where the searches for scales have their weights: many groups side by side, a lane each.

One array with constant offsets, and loops of constant length: only so does the compiler see that no two parts of it
overlap and that no index is negative, and makes vectors.
"""

from __future__ import annotations

LANES = 64
"""Groups searched together: enough to vectorise, few enough for the first-level cache."""
LARGEST = 64
"""Weights of the largest group there is."""
WEIGHTS = LARGEST * LANES
"""Where the importance of the weights begins: weight i of the group in lane g is at i * LANES + g, its importance is
WEIGHTS further on."""
ROOM = 3 * WEIGHTS + 8 * LANES
"""Floats of the whole array; what lies behind the importance belongs to the search."""
