"""Scans a SentencePiece model with compiled code: it has a quarter of a million small messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.jit import compiled

_TEXT = 1 << 3 | 2
_SCORE = 2 << 3 | 5
_TYPE = 3 << 3
_USUAL = 1
"""Type of a piece that names none."""
_BROKEN = -1


@compiled
def _varint(data: Any, at: int, end: int) -> tuple[Any, Any]:
    """The variable-length number at `at` and the position behind it; -1 twice if it does not end before `end`."""
    value = np.int64(0)
    for k in range(8):
        if at + k >= end:
            break
        value |= (np.int64(data[at + k]) & 127) << (7 * k)
        if data[at + k] < 128:
            return value, at + k + 1
    return _BROKEN, _BROKEN


@compiled
def scan_pieces(data: Any, starts: Any, ends: Any, scores: Any, kinds: Any) -> int:
    """Find the pieces of a model, data u8 [bytes].

    Fills in, for each piece, start and end of its text (i64), the bits of its score (u32) and its type (i32); what a
    piece does not name has the field's default.

    Returns:
        Number of pieces, -1 if the file is not well-formed or has more pieces than there is room for.
    """
    at, end, count = 0, data.size, 0
    room = min(starts.size, ends.size, scores.size, kinds.size)
    while at < end:
        tag, at = _varint(data, at, end)
        length, at = _varint(data, at, end) if at >= 0 else (_BROKEN, _BROKEN)
        if at < 0 or tag & 7 != 2 or length > end - at:
            return _BROKEN
        stop = at + length
        if tag == _TEXT:  # pieces are field 1 of the model
            if count == room:
                return _BROKEN
            starts[count] = ends[count] = at
            scores[count], kinds[count] = 0, _USUAL
            while at < stop:
                field = data[at]
                if field == _TEXT:
                    size, at = _varint(data, at + 1, stop)
                    if at < 0 or size > stop - at:
                        return _BROKEN
                    starts[count] = at
                    at += size
                    ends[count] = at
                elif field == _SCORE and at + 5 <= stop:
                    for k in range(4):
                        scores[count] |= np.uint32(data[at + 1 + k]) << np.uint32(8 * k)
                    at += 5
                elif field == _TYPE:
                    kind, at = _varint(data, at + 1, stop)
                    if at < 0:
                        return _BROKEN
                    kinds[count] = kind
                else:
                    return _BROKEN
            count += 1
        at = stop
    return count
