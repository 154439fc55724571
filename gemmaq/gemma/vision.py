"""The vision side of Gemma 3: a SigLIP tower, the same in 4B, 12B and 27B, and a projector into the text model.

Dimensions as in the published config files; the counts agree with the published parameter counts.
"""

from __future__ import annotations

HIDDEN = 1152
INTERMEDIATE = 4304
LAYERS = 27
HEADS = 16
PATCH = 14
IMAGE = 896
PATCHES = (IMAGE // PATCH) ** 2
TOKENS = 256
"""What an image takes of the context, after pooling."""

_MATRICES = LAYERS * (4 * HIDDEN**2 + 2 * HIDDEN * INTERMEDIATE)
_BIASES = LAYERS * (5 * HIDDEN + INTERMEDIATE)
_NORMS = LAYERS * 4 * HIDDEN + 2 * HIDDEN
_PATCH_EMBEDDING = 3 * PATCH**2 * HIDDEN + HIDDEN
_POSITIONS = PATCHES * HIDDEN

TOWER_PARAMETERS = _MATRICES + _BIASES + _NORMS + _PATCH_EMBEDDING + _POSITIONS


def projector_parameters(hidden: int) -> int:
    """Weights of the projector into a text model of that width: a matrix and a norm."""
    return HIDDEN * hidden + HIDDEN


def half_bytes(hidden: int) -> int:
    """Bytes of tower and projector in BF16 or F16, as a checkpoint has them."""
    return 2 * (TOWER_PARAMETERS + projector_parameters(hidden))


def mmproj_bytes(hidden: int) -> int:
    """Bytes of the tensors of an F16 mmproj file: matrices in F16, everything else in F32."""
    matrices = _MATRICES + HIDDEN * hidden
    return 2 * matrices + 4 * (TOWER_PARAMETERS + projector_parameters(hidden) - matrices)
