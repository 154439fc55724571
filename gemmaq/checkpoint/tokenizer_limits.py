"""Limits of a vocabulary: what reads texts with it takes time by the length of its tokens, and needs different ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

_MAX_TOKEN, _MAX_TEXT = 512, 1 << 23
"""Characters of a token, and of all: Gemma's have at most 48, and 2 million in all."""


def problem(pieces: Sequence[str], unused: NDArray[np.bool_]) -> str | None:
    """What would take hours, or split no text, as the end of a clause; None if the tokens are within the limits.

    Args:
        pieces: Text of every id.
        unused: Whether no text has the token, bool [ids].
    """
    lengths = list(map(len, pieces))
    longest = max(lengths, default=0)
    if longest > _MAX_TOKEN:
        return f"whose token {lengths.index(longest)} has {longest:,} characters, {_MAX_TOKEN} are allowed"
    if sum(lengths) > _MAX_TEXT:
        return f"whose tokens have {sum(lengths):,} characters in all, {_MAX_TEXT:,} are allowed"
    used, different = int(np.count_nonzero(~unused)), len(set(compress(pieces, (~unused).tolist())))
    if 2 * different < used:
        return f"of {used:,} tokens, of which only {different:,} differ"
    return None
