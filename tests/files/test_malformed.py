"""What a reader stumbles over is an error of the file that it reads."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmaq.errors import InputError, NotFoundError, UsageError
from gemmaq.files.malformed import MOST_LEVELS, check_depth, parse_json, refused


@pytest.mark.parametrize(
    "slip",
    [
        lambda: {}["key"],
        lambda: [][1],
        lambda: int("x"),
        lambda: 1 + "a",  # type: ignore[operator]
        lambda: None.x,  # type: ignore[attr-defined]
        lambda: 1 // 0,
        lambda: float(10**400),
        lambda: struct.pack("<I", 1 << 40),
        lambda: np.zeros(3).reshape(2),
        lambda: np.empty(1 << 60),
        lambda: hash([]),
        lambda: b"\xff".decode(),
        lambda: repr(nested(100_000)),
    ],
)
def test_what_fails_is_an_error_of_the_file(slip: Any) -> None:
    for kind in (InputError, UsageError):
        with pytest.raises(kind, match=r"^a\.json is malformed|^a\.json: ") as told, refused("a.json", kind):
            slip()
        assert len(told.value.message) < 300 and told.value.__cause__ is not None


def test_errors_that_are_told_and_bugs_of_others_pass() -> None:
    with pytest.raises(NotFoundError, match=r"^b does not exist"), refused("a"):
        raise NotFoundError("does not exist", path="b")
    for other in (KeyboardInterrupt, SystemExit, OSError):
        with pytest.raises(other), refused("a"):
            raise other


def nested(levels: int, kind: str = "[") -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if kind == "[" else {"a": value}
    return value


@pytest.mark.parametrize("kind", ["[", "{"])
def test_deep_nesting_is_refused(kind: str) -> None:
    assert parse_json(json.dumps(nested(MOST_LEVELS, kind))) == nested(MOST_LEVELS, kind)
    opening, closing = ("[", "]") if kind == "[" else ('{"a":', "}")
    for levels in (MOST_LEVELS + 1, 900, 3000, 200_000):
        with pytest.raises(ValueError, match="nested more than"):
            parse_json(opening * levels + "1" + closing * levels)
    with pytest.raises(ValueError, match="nested more than"):
        check_depth(nested(MOST_LEVELS + 1, kind))


@pytest.mark.parametrize("text", ["", "{", '{"a": "\\ud800"}', b'{"a": "\\uDC00"}', b"\xff", "1" * 5000, "[1,]"])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_json_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode(), dict) == value
