"""Whether bytes are a JSON object, without the values: in a twentieth of the time that parsing them takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemmaq.jit import compiled

_DEPTH, _DIGITS = 64, 1000
"""Objects and lists within one another, and digits of a number, that are looked through."""
_ANY, _FIRST, _KEY, _FIRST_KEY, _COLON, _AFTER = range(6)
"""What may come next: a value, a value or the end of a list, a key, a key or the end of an object, a colon, more."""
_QUOTE, _ESCAPE, _MINUS, _DOT, _ZERO, _NINE, _SPACE, _U = (ord(one) for one in '"\\-.09 u')
_OPEN, _CLOSE, _LIST, _LIST_END, _COMMA, _IS = (ord(one) for one in "{}[],:")
_LETTERS = tuple(ord(one) for one in "abcdef")
_ESCAPES = tuple(ord(one) for one in '"\\/bfnrt')
_WORDS = (b"true", b"false", b"null")


@compiled
def _string_end(data: Any, at: Any) -> Any:
    """Where the string goes on behind its quotes that begins at `at`, behind the first; -1 if it is none."""
    while at < data.size and data[at] != _QUOTE:
        if data[at] < _SPACE:
            return -1
        if data[at] == _ESCAPE:
            at += 1
            if at < data.size and data[at] == _U:
                if at + 4 >= data.size:
                    return -1
                for k in range(at + 1, at + 5):
                    if not (_ZERO <= data[k] <= _NINE or (data[k] | 32) in _LETTERS):
                        return -1
                at += 4
            elif at >= data.size or data[at] not in _ESCAPES:
                return -1
        at += 1
    return at + 1 if at < data.size else -1


@compiled
def _digits_end(data: Any, at: Any) -> Any:
    """Behind the digits from `at` on; -1 if there are none, or too many."""
    end = at
    while end < data.size and _ZERO <= data[end] <= _NINE:
        end += 1
    return end if 0 < end - at < _DIGITS else -1


@compiled
def _number_end(data: Any, at: Any) -> Any:
    """Behind the number that begins at `at`; -1 if it is none."""
    if data[at] == _MINUS:
        at += 1
    end = _digits_end(data, at)
    if end < 0 or (data[at] == _ZERO and end > at + 1):
        return -1
    if end < data.size and data[end] == _DOT:
        end = _digits_end(data, end + 1)
    if 0 <= end < data.size and data[end] | 32 == _LETTERS[4]:
        sign = end + 1 < data.size and (data[end + 1] == _MINUS or data[end + 1] == 43)
        end = _digits_end(data, end + 2 if sign else end + 1)
    return end


@compiled
def _word_end(data: Any, at: Any, words: Any) -> Any:
    """Behind true, false or null; -1 if it is none. Words u8 [3, 5], with spaces behind the shorter ones."""
    for k in range(words.shape[0]):
        size = 0
        while size < words.shape[1] and words[k, size] != _SPACE:
            size += 1
        same = at + size <= data.size
        for j in range(size if same else 0):
            same = same and data[at + j] == words[k, j]
        if same:
            return at + size
    return -1


@compiled
def _scan(data: Any, words: Any) -> Any:
    """Whether bytes, u8 [n], are an object."""
    inside = np.zeros(_DEPTH + 1, np.bool_)  # whether it is an object, of each level
    depth, may_come, at = 0, _ANY, 0
    while at < data.size:
        byte = data[at]
        if byte == _SPACE or 9 <= byte <= 10 or byte == 13:
            at += 1
        elif may_come == _AFTER:
            if depth == 0:
                return False
            if byte == _COMMA:
                may_come = _KEY if inside[depth] else _ANY
            elif byte == (_CLOSE if inside[depth] else _LIST_END):
                depth -= 1
            else:
                return False
            at += 1
        elif may_come == _COLON:
            if byte != _IS:
                return False
            may_come, at = _ANY, at + 1
        elif may_come in (_FIRST_KEY, _FIRST) and byte == (_CLOSE if may_come == _FIRST_KEY else _LIST_END):
            depth, may_come, at = depth - 1, _AFTER, at + 1
        elif byte == _QUOTE and depth > 0:
            at = _string_end(data, at + 1)
            if at < 0:
                return False
            may_come = _COLON if may_come in (_KEY, _FIRST_KEY) else _AFTER
        elif may_come in (_KEY, _FIRST_KEY) or (depth == 0 and byte != _OPEN):
            return False
        elif byte in (_OPEN, _LIST):
            depth += 1
            if depth > _DEPTH:
                return False
            inside[depth] = byte == _OPEN
            may_come, at = (_FIRST_KEY if byte == _OPEN else _FIRST), at + 1
        else:
            is_number = byte == _MINUS or _ZERO <= byte <= _NINE
            at = _number_end(data, at) if is_number else _word_end(data, at, words)
            if at < 0:
                return False
            may_come = _AFTER
    return depth == 0 and may_come == _AFTER


def is_object(data: bytes) -> bool:
    """Whether bytes are a JSON object in UTF-8. False means that only a parser can tell, not that they are none."""
    words = np.frombuffer(b"".join(word.ljust(5) for word in _WORDS), np.uint8).reshape(len(_WORDS), 5)
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return bool(_scan(np.frombuffer(data, np.uint8), words))
