"""The GGUF header: what is refused, and that no header costs memory or shows a traceback."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damage import bounded, corrupted, gguf_bytes, key, parse_safely, tensor, text
from gemmaq.errors import InputError
from gemmaq.files import gguf_reader
from gemmaq.files.gguf_reader import ARRAY, BOOL, STRING, GgufFile
from gemmaq.files.span import FileSpan

U8, U32, F32_VALUE = 0, 4, 6
F32, Q4_0, Q8_0 = 0, 2, 8
KEYS = [
    key("general.architecture", STRING, text("gemma3")),
    key("general.alignment", U32, struct.pack("<I", 32)),
    key("flag", BOOL, b"\x01"),
    key("scores", ARRAY, struct.pack("<IQ2f", F32_VALUE, 2, 1.5, -2)),
    key("pieces", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + text("\u2581b")),
]
TENSORS = [tensor("a", [32, 2], Q4_0, 0), tensor("b", [3], F32, 64)]
DATA = 96
GOOD = gguf_bytes(KEYS, TENSORS, DATA)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("header") / "model.gguf"


def parse(content: bytes, path: Path) -> GgufFile:
    path.write_bytes(content)
    return gguf_reader.parse(FileSpan.of(path))


def refusal(content: bytes, path: Path) -> str:
    with pytest.raises(InputError) as refused:
        parse(content, path)
    assert str(path) in refused.value.message
    return refused.value.message


@pytest.mark.parametrize("version", [2, 3])
def test_keys_and_tensors_are_read(version: int, path: Path) -> None:
    content = gguf_bytes(KEYS, TENSORS, DATA, version=version)
    file = parse(content, path)
    scores = file.keys["scores"]
    assert {**file.keys, "scores": None} == {
        "general.architecture": "gemma3",
        "general.alignment": 32,
        "flag": True,
        "scores": None,
        "pieces": ["a", "\u2581b"],
    }
    np.testing.assert_array_equal(scores, np.array([1.5, -2], np.float32))
    assert file.data_offset == len(content) - DATA
    listed = [(t.name, t.shape, t.type.name, t.offset - file.data_offset, t.nbytes) for t in file.tensors]
    assert listed == [("a", (2, 32), "Q4_0", 0, 36), ("b", (3,), "F32", 64, 12)]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not a GGUF file"),
        (gguf_bytes(magic=b"GGML"), "not a GGUF file"),
        (gguf_bytes(KEYS, TENSORS, DATA, version=1), "version 1 "),
        (gguf_bytes(KEYS, TENSORS, DATA, version=4), "version 4 "),
        (gguf_bytes(KEYS, TENSORS, DATA, version=3 << 24), "big-endian"),
        (gguf_bytes(counts=(1 << 63, 0)), f"claims {1 << 63} tensors"),
        (gguf_bytes(counts=(0, 1 << 63)), f"{1 << 63} keys"),
        (gguf_bytes(KEYS, TENSORS, counts=(2, 50_000)), "byte"),
        (gguf_bytes(counts=(60_000, 0)), "cut short"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_header_is_refused(content: bytes, word: str, path: Path) -> None:
    assert word in refusal(content, path)


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (key("k", 13, bytes(8)), "value type 13"),
        (key("k", ARRAY, struct.pack("<IQ", 13, 1)), "array type 13"),
        (key("k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 5000), "array type 9"),
        (key("k", STRING, text(b"\xff")), "not UTF-8"),
        (struct.pack("<Q", 1 << 63), f"claims {1 << 63} bytes"),
        (key("k", ARRAY, struct.pack("<IQ", STRING, 1 << 63)), f"claims {1 << 63} strings"),
        (key("k", ARRAY, struct.pack("<IQ", U8, 1 << 63)), f"claims {1 << 63} numbers"),
        (key("general.architecture", STRING, text("llama")), "key general.architecture twice"),
        (key("k\n\x1b[2J", U32, bytes(4)), "is not a valid name"),
        (key("k" * 2000, U32, bytes(4)), "is not a valid name"),
        *((key("general.alignment", U32, struct.pack("<I", n)), f"alignment is {n}") for n in (0, 24, 1 << 31)),
        (key("general.alignment", STRING, text("32")), "alignment is '32'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_key_is_refused(broken: bytes, word: str, path: Path) -> None:
    assert word in refusal(gguf_bytes([KEYS[0], broken]), path)


def test_no_claim_of_a_header_is_believed_for_the_size_of_the_file(path: Path) -> None:
    for claim in (
        struct.pack("<Q", 1 << 39),
        key("k", ARRAY, struct.pack("<IQ", U8, 1 << 39)),
        key("k", ARRAY, struct.pack("<IQ", STRING, 1 << 36)),
    ):
        with path.open("wb") as file:
            file.write(gguf_bytes(counts=(0, 1))[:24] + claim)
            file.truncate(1 << 40)
        with bounded(), pytest.raises(InputError, match="claims"):
            gguf_reader.parse(FileSpan.of(path))
    path.unlink()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (tensor("broken\n", [8], F32, 96), "is not a valid name"),
        (tensor("broken", [], F32, 96), "0 dimensions"),
        (tensor("broken", [1] * 5, F32, 96), "5 dimensions"),
        (tensor("broken", [8], 4, 96), "unknown type 4"),
        (tensor("broken", [8], 1 << 31, 96), "unknown type"),
        (tensor("broken", [0], F32, 96), "shape"),
        (tensor("broken", [1 << 63, 1 << 63], F32, 96), "shape"),
        (tensor("broken", [33], Q8_0, 96), "shape"),
        (tensor("broken", [8], F32, 100), "not aligned"),
        (tensor("broken", [8], F32, 128), "truncated"),
        (tensor("broken", [1 << 40, 1 << 40], F32, 96), "truncated"),
        (tensor("broken", [8], F32, (1 << 64) - 32), "truncated"),
        (tensor("broken", [32], F32, 0), "overlaps"),
        (tensor("broken", [32], F32, 32), "overlaps"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_tensor_that_contradicts_itself_or_the_file_is_named(broken: bytes, words: str, path: Path) -> None:
    message = refusal(gguf_bytes(KEYS, [*TENSORS, broken], DATA), path)
    assert words in message
    assert "broken" in message


def test_a_tensor_listed_twice_is_refused(path: Path) -> None:
    assert "tensor a twice" in refusal(gguf_bytes(KEYS, [*TENSORS, tensor("a", [8], F32, 96)], DATA + 32), path)


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    needed = len(GOOD) - DATA + 64 + 12
    for size in range(needed):
        refusal(GOOD[:size], path)
    assert parse(GOOD[:needed], path).tensors


def check(file: GgufFile | None, size: int) -> None:
    """What was accepted lies in the file, apart from each other."""
    if file is None:
        return
    end = file.data_offset
    for info in sorted(file.tensors, key=lambda t: t.offset):
        assert end <= info.offset
        end = info.offset + info.nbytes
        assert end <= size


numbers = st.integers(0, 70) | st.integers(0, (1 << 64) - 1)
words = st.integers(0, 40) | st.integers(0, (1 << 32) - 1)
names = st.binary(max_size=6).map(text) | st.sampled_from(["a", "general.alignment"]).map(text)
values = st.binary(max_size=24) | st.builds(
    lambda kind, n, rest: struct.pack("<IQ", kind, n) + rest, words, numbers, names
)
spelled_keys = st.builds(lambda name, kind, value: name + struct.pack("<I", kind) + value, names, words, values)
shapes = st.lists(st.sampled_from([1, 3, 32, 256]) | numbers, max_size=5)
infos = st.builds(tensor, st.text(max_size=4), shapes, words, st.sampled_from([0, 32, 64]) | numbers)


@settings(max_examples=250, deadline=None)
@given(
    keys=st.lists(spelled_keys, max_size=3),
    tensors=st.lists(infos, max_size=3),
    data=st.integers(0, 4096),
    counts=st.none() | st.tuples(numbers, numbers),
)
def test_any_header_is_read_or_refused(
    keys: list[bytes], tensors: list[bytes], data: int, counts: tuple[int, int] | None, path: Path
) -> None:
    content = gguf_bytes(keys, tensors, data, counts=counts)
    check(parse_safely(gguf_reader.parse, path, content), len(content))


@settings(max_examples=250, deadline=None)
@given(content=corrupted(GOOD))
def test_a_corrupted_file_is_read_or_refused(content: bytes, path: Path) -> None:
    check(parse_safely(gguf_reader.parse, path, content), len(content))


@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=80))
def test_noise_is_refused(noise: bytes, path: Path) -> None:
    content = gguf_bytes()[:8] + noise
    check(parse_safely(gguf_reader.parse, path, content), len(content))


@pytest.mark.parametrize("step", [1, 7, 64, 1 << 20])
def test_strings_are_read_whatever_part_of_the_file_is_in_memory(
    step: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gemmaq.files.gguf_reader._STEP", step)
    texts = ["", "a", "ä" * 40, *(str(number) * (number % 9) for number in range(300))]
    tokens = key("tokens", ARRAY, struct.pack("<IQ", STRING, len(texts)) + b"".join(map(text, texts)))
    assert parse(gguf_bytes([*KEYS, tokens], TENSORS, DATA), path).keys["tokens"] == texts
