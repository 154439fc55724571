"""The safetensors header: what is refused, and that no header costs memory or shows a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damage import bounded, corrupted, parse_safely, safetensors_bytes
from gemmaq.errors import InputError
from gemmaq.files import safetensors_header
from gemmaq.files.span import FileSpan

A = {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}
B = {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]}
GOOD = {"__metadata__": {"format": "pt"}, "a": A, "b": B}
DATA = bytes(20)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("header") / "model.safetensors"


def parse(content: bytes, path: Path) -> list[safetensors_header.Entry]:
    path.write_bytes(content)
    return safetensors_header.parse(FileSpan.of(path))


def refusal(content: bytes, path: Path) -> str:
    with pytest.raises(InputError) as refused:
        parse(content, path)
    assert str(path) in refused.value.message
    return refused.value.message


def test_entries_say_where_tensors_lie_in_the_file(path: Path) -> None:
    content = safetensors_bytes(GOOD, DATA)
    start = len(content) - len(DATA)
    first, second = parse(content, path)
    assert (first.name, first.dtype, first.shape, first.offset, first.nbytes) == ("a", "BF16", (2, 3), start, 12)
    assert (second.name, second.dtype, second.shape, second.offset, second.nbytes) == ("b", "F32", (2,), start + 12, 8)


def test_scalars_and_empty_tensors_are_read(path: Path) -> None:
    header = {
        "scalar": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]},
        "empty": {"dtype": "F32", "shape": [0, 4], "data_offsets": [8, 8]},
    }
    assert [entry.nbytes for entry in parse(safetensors_bytes(header, bytes(8)), path)] == [8, 0]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "0 bytes"),
        (b"\x02\0\0\0\0\0\0\0{", "9 bytes"),
        ((1 << 40).to_bytes(8, "little") + b"{}", str(1 << 40)),
        (((1 << 64) - 1).to_bytes(8, "little") + b"{}", str((1 << 64) - 1)),
        (safetensors_bytes(GOOD)[:-1], "header claims"),
        (safetensors_bytes([1, 2]), "no header"),
        (safetensors_bytes(b"", b"{}{}"), "broken header"),
        (safetensors_bytes(b'{"a": }'), "broken header"),
        (safetensors_bytes(b'{"a\xff": 1}'), "broken header"),
        (safetensors_bytes(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "broken header"),
        (safetensors_bytes(b'{"a": ' + b"9" * 5000 + b"}"), "broken header"),
        (safetensors_bytes(b'{"a": {}, "a": {}}'), "twice"),
        (safetensors_bytes({"a\ud800": A}, DATA), "half a surrogate pair"),
        (safetensors_bytes({"a\x1b[2J\n": A}, DATA), "not a valid tensor name"),
        (safetensors_bytes({"a" * 10_000: A}, DATA), "not a valid tensor name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_header_is_refused(content: bytes, word: str, path: Path) -> None:
    assert word in refusal(content, path)


@pytest.mark.parametrize("length", [9 << 20, 1 << 39])
def test_a_header_that_claims_a_large_file_is_not_read(length: int, path: Path) -> None:
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little") + b"{")
        file.truncate(1 << 40)
    with bounded(), pytest.raises(InputError, match=f"no header of {length} bytes"):
        safetensors_header.parse(FileSpan.of(path))
    path.unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_offsets": [0, 1000]}, "tensor a.* 12 bytes"),
        ({"shape": [2, 300], "data_offsets": [0, 1200]}, "tensor a ends at byte 1\\d+, but the file is truncated"),
        ({"shape": [1 << 40, 1 << 40], "data_offsets": [0, 12]}, "tensor a"),
        ({"shape": [1 << 62], "data_offsets": [0, 12]}, "tensor 'a' is malformed"),
        ({"data_offsets": [12, 0]}, "tensor a"),
        ({"data_offsets": [-12, 0]}, "tensor 'a' is malformed"),
        ({"data_offsets": [0, 12, 24]}, "tensor 'a' is malformed"),
        ({"data_offsets": [0.0, 12.0]}, "tensor 'a' is malformed"),
        ({"data_offsets": "0,"}, "tensor 'a' is malformed"),
        ({"data_offsets": None}, "tensor 'a' is malformed"),
        ({"shape": [2, -3]}, "tensor 'a' is malformed"),
        ({"shape": [True, 6]}, "tensor 'a' is malformed"),
        ({"shape": 6}, "tensor 'a' is malformed"),
        ({"shape": [1] * 17}, "tensor 'a' is malformed"),
        ({"dtype": "Q4_K"}, "tensor a has the unknown dtype 'Q4_K'"),
        ({"dtype": None}, "tensor 'a' is malformed"),
        ({"dtype": ["BF16"]}, "tensor 'a' is malformed"),
        ({"dtype": {}}, "tensor 'a' is malformed"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [4, 16]}, "tensor b overlaps a"),
    ],
    ids=str,
)
def test_an_entry_that_contradicts_itself_or_the_file_names_its_tensor(
    change: dict[str, Any], words: str, path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        parse(safetensors_bytes({"a": {**A, **change}, "b": B}, DATA), path)


@pytest.mark.parametrize("entry", [None, 1, "text", [], ["dtype"], {}, {"dtype": "BF16"}])
def test_an_entry_that_is_no_entry_names_its_tensor(entry: object, path: Path) -> None:
    assert "'broken' is malformed" in refusal(safetensors_bytes({"broken": entry}, DATA), path)


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    content = safetensors_bytes(GOOD, DATA)
    for size in range(len(content)):
        refusal(content[:size], path)


def check(entries: list[safetensors_header.Entry] | None, size: int) -> None:
    """What was accepted lies in the file, apart from each other."""
    end = 8
    for entry in sorted(entries or [], key=lambda e: (e.offset, e.nbytes)):
        assert end <= entry.offset
        end = entry.offset + entry.nbytes
        assert end <= size


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
sizes = st.integers(0, 24) | st.integers(0, 1 << 65) | st.just(-1)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*safetensors_header.ITEM_BYTES]) | anything,
        "shape": st.lists(sizes, max_size=4) | anything,
        "data_offsets": st.tuples(sizes, sizes) | anything,
    }
)


@settings(max_examples=250, deadline=None)
@given(header=st.dictionaries(st.text(max_size=6), entries | anything, max_size=5), data=st.integers(0, 64))
def test_any_json_is_read_or_refused(header: dict[str, Any], data: int, path: Path) -> None:
    content = safetensors_bytes(header, bytes(data))
    check(parse_safely(safetensors_header.parse, path, content), len(content))


@settings(max_examples=250, deadline=None)
@given(content=corrupted(safetensors_bytes(GOOD, DATA)))
def test_a_corrupted_file_is_read_or_refused(content: bytes, path: Path) -> None:
    check(parse_safely(safetensors_header.parse, path, content), len(content))


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=64))
def test_noise_is_refused(content: bytes, path: Path) -> None:
    check(parse_safely(safetensors_header.parse, path, content), len(content))
