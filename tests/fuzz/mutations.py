"""Damage to files, decided by a seed: bytes, JSON values at any depth, and numbers where a format expects lengths."""

from __future__ import annotations

import copy
import json
import random
import struct
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Random = random.Random

DEEP = 3000
_NUMBERS = (-1, 0, 1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e308)
_WORDS = ("", " ", "a" * 5000, "\x1b[2J", "a\nb", "../../x", "{}", "%s", "é", "\ud800", "\0", "[/bold]", "[1]")
_RAW = ("NaN", "Infinity", "-Infinity", "1e999", "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP)
_MARK = "@raw@"


def _value(random: Random) -> Any:
    """A value that most keys do not expect."""
    return random.choice(
        [
            lambda: random.choice(_NUMBERS),
            lambda: random.choice(_WORDS),
            lambda: f"{_MARK}{random.randrange(len(_RAW))}{_MARK}",
            lambda: random.choice([None, True, False]),
            lambda: random.choice([[], {}, [[]], [None], {"": 1}, [1, "a", None], {"a": {"b": {}}}]),
        ]
    )()


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys and indices of the values within a value, some of each long list."""
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = [
            (index, value[index]) for index in {*range(min(8, len(value))), *range(max(0, len(value) - 4), len(value))}
        ]
    else:
        return
    for key, inner in items:
        yield (*at, key)
        yield from _places(inner, (*at, key))


def in_json(content: bytes, random: Random) -> bytes:
    """A JSON document with one to three values replaced, dropped, swapped or doubled."""
    text = json.dumps(_changed(json.loads(content), random))
    for number, raw in enumerate(_RAW):
        text = text.replace(json.dumps(f"{_MARK}{number}{_MARK}"), raw)
    return text.encode()


def _changed(document: Any, random: Random) -> Any:
    """A document with one to three values replaced, dropped, swapped or doubled."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(document))
        if not places:
            break
        *above, last = random.choice(places)
        holder = document
        for key in above:
            holder = holder[key]
        what = random.random()
        if what < 0.15:
            del holder[last]
        elif what < 0.25:
            other = random.choice(places)
            source = document
            for key in other:
                source = source[key] if _has(source, key) else None
            holder[last] = copy.deepcopy(source)
        elif what < 0.35 and isinstance(holder, dict):
            holder[random.choice(_WORDS)] = holder[last]
        elif what < 0.5 and isinstance(holder[last], int):
            holder[last] += random.choice((-1, 1, 1 << 16))
        else:
            holder[last] = _value(random)
    return document


def in_toml(content: bytes, random: Random) -> bytes:
    """A TOML document, changed likewise."""
    document = _changed(tomllib.loads(content.decode()), random)
    return "".join(f"{_word(key)} = {_in_line(value)}\n" for key, value in document.items()).encode("utf-8", "replace")


def _word(text: str) -> str:
    """A text as TOML spells it, which is as JSON does."""
    return json.dumps(text, ensure_ascii="\ud800" not in text).replace("\\ud800", "\\uD800")


_RAW_TOML = ("nan", "inf", "-inf", "1e999", "[" * DEEP + "]" * DEEP, "{a=" * DEEP + "1" + "}" * DEEP)


def _in_line(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_word(key)} = {_in_line(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_in_line, value)) + "]"
    if isinstance(value, str) and value.startswith(_MARK):
        return _RAW_TOML[int(value[5:-5])]
    if value is None:
        return "1979-05-27T07:32:00Z"
    return _word(value) if isinstance(value, str) else json.dumps(value)


def in_gguf(content: bytes, random: Random) -> bytes:
    """A GGUF file with other types, numbers, lengths or names where its header has some."""
    data = bytearray(content)
    spots = list(_spots(content))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at, size = random.choice(spots)
        small = random.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 23, 24, 26, 27, 28, 30, 39, 40, 99))
        number = random.choice(
            (small, small, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), random.randrange(2 ** (8 * size)))
        )
        data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(data)


_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def _spots(data: bytes) -> Iterator[tuple[int, int]]:
    """Positions of the numbers in a sound header with their bytes, some of each long array."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    tensors, keys, at = number(8, 8), number(16, 8), 24
    yield from ((4, 4), (8, 8), (16, 8))
    for _ in range(keys):
        at += 8 + number(at, 8)
        kind, at = number(at, 4), at + 4
        yield at - 4, 4
        count = 1
        if kind == 9:
            kind, count = number(at, 4), number(at + 4, 8)
            yield from ((at, 4), (at + 4, 8))
            at += 12
        for index in range(count):
            size = 8 + number(at, 8) if kind == 8 else _SIZES[kind]
            if index < 4 or index >= count - 2:
                yield at, min(size, 8)
            at += size
    for _ in range(tensors):
        yield at, 8
        at += 8 + number(at, 8)
        dimensions, at = number(at, 4), at + 4
        yield at - 4, 4
        yield from ((at + 8 * index, 8) for index in range(dimensions))
        at += 8 * dimensions
        yield from ((at, 4), (at + 4, 8))
        at += 12


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else isinstance(holder, list) and key < len(holder)


def in_bytes(content: bytes, random: Random, *, head: int = 4096) -> bytes:
    """Bytes that were flipped, overwritten, cut or put in, more often near the beginning."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        end = min(len(data), head) if random.random() < 0.8 else len(data)
        at = random.randrange(end + 1)
        what = random.randrange(6)
        if what == 0 and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif what == 1:
            data[at : at + 8] = struct.pack(
                "<Q", random.choice([n for n in _NUMBERS if isinstance(n, int) and 0 <= n < 2**64])
            )
        elif what == 2:
            data[at : at + 4] = struct.pack("<I", random.choice((0, 1, 255, 2**31, 2**32 - 1)))
        elif what == 3:
            del data[at:]
        elif what == 4:
            data[at:at] = bytes(random.randrange(256) for _ in range(random.randrange(1, 9)))
        else:
            data[at : at + random.randrange(1, 64)] = b"\0" * random.randrange(64)
    return bytes(data)


def in_safetensors(content: bytes, random: Random) -> bytes:
    """A safetensors file with another header, whose length is right."""
    length = int.from_bytes(content[:8], "little")
    header = in_json(content[8 : 8 + length], random)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


_STRUCTURED = {".json": in_json, ".toml": in_toml, ".safetensors": in_safetensors, ".gguf": in_gguf}


def of_file(path: Path, random: Random) -> bytes:
    """Damage of the kind that suits a file."""
    content = path.read_bytes()
    structured = _STRUCTURED.get(path.suffix)
    if structured is not None and random.random() < 0.8:
        return structured(content, random)
    return in_bytes(content, random)
