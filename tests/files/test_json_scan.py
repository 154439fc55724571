"""JSON objects are found without parsing; what is not JSON for Python's parser is never taken for one."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gemmaq.files.json_scan import is_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), VALUES), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_what_python_writes_is_an_object(value: dict[str, object], indent: object, escaped: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=escaped)  # type: ignore[arg-type]
    assert is_object(text.encode())


def is_parsed(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data.decode()), dict)
    except (ValueError, RecursionError):
        return False


@given(st.text('{}[]",:\\u0aEe+-.1 \n', max_size=30).map(lambda text: '{"a":' + text + "}"))
@example('{"a":01}')
@example('{"a":1e}')
@example('{"a":-}')
def test_nothing_else_is_taken_for_one(text: str) -> None:
    if is_object(text.encode()):
        assert is_parsed(text.encode())


@given(st.data())
def test_nor_is_an_object_with_a_damaged_byte(data: st.DataObject) -> None:
    raw = bytearray(
        json.dumps({"model": {"vocab": {"a\u1234": 0, "b": -1.5e3}, "merges": [["a", "b"], None]}}).encode()
    )
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if is_object(bytes(raw)):
        assert is_parsed(bytes(raw))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'"a"', b"1", b"{}{}", b'{"a" 1}', b'{"a":1,}', b'{"a":[1,]}', b'{"a":nul}', b'{"a":"\n"}',
     b'{"a":"\\x"}', b'{"a":"\\u12g4"}', b'{"a":"', b'{"a":"\\', b'{"a":"\\u12', b"{]", b'{"a":[}', b"\xef\xbb\xbf{}",
     b'{"a":"\xff"}', b'{"a":1.}', b'{"a":.5}', b'{"a":+1}', b'{"a":tru', b'{,}', b'{"a"}', b'{"a":}', b'{1:2}'],
)  # fmt: skip
def test_not_these(data: bytes) -> None:
    assert not is_object(data)
    assert not is_parsed(data)


def test_deep_ones_and_long_numbers_are_left_to_a_parser() -> None:
    assert is_object(b'{"a":' + b"[" * 60 + b"]" * 60 + b"}")
    assert not is_object(b'{"a":' + b"[" * 70 + b"]" * 70 + b"}")
    assert not is_object(b'{"a":' + b"1" * 5000 + b"}")
