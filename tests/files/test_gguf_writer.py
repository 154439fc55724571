"""GGUF headers as written: gguf-py reads every kind of key, and finds every tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFReader

from gemmaq.files.gguf_writer import F32, I32, U16, U32, Info, Keys, aligned, header


def test_every_kind_of_key_is_read_by_gguf_py(tmp_path: Path) -> None:
    keys = Keys()
    keys.text("general.architecture", "test")
    keys.number("a.u16", 65535, U16)
    keys.number("a.u32", 1 << 31, U32)
    keys.number("a.i32", -5, I32)
    keys.number("a.f32", 0.5, F32)
    keys.flag("a.flag", True)
    keys.texts("a.texts", ["é", "", "with\0zero"])
    keys.array("a.array", np.arange(3, dtype="<i4"), I32)
    for name, value in {"text": "x", "flag": False, "flags": [True, False], "floats": (0.5,), "float": 2.0}.items():
        keys.scalar(f"b.{name}", value)
    keys.scalar("b.number", 7)
    tensors = [Info("one", (3, 2), 0, 24), Info("two", (5,), 0, 20)]
    head, offsets = header(keys, tensors)
    assert len(head) % 32 == 0 and offsets == [0, 32]
    path = tmp_path / "a.gguf"
    values = np.arange(11, dtype="<f4")
    path.write_bytes(head + values[:6].tobytes() + bytes(8) + values[6:].tobytes() + bytes(12))
    reader = GGUFReader(path)
    read = {name: field.contents() for name, field in reader.fields.items()}
    assert (read["a.u16"], read["a.u32"], read["a.i32"], read["a.f32"]) == (65535, 1 << 31, -5, 0.5)
    assert read["a.flag"] is True and read["a.texts"] == ["é", "", "with\0zero"] and read["a.array"] == [0, 1, 2]
    assert (read["b.text"], read["b.flag"], read["b.float"], read["b.number"]) == ("x", False, 2.0, 7)
    assert read["b.flags"] == [True, False] and read["b.floats"] == [0.5]
    one, two = reader.tensors
    assert np.array_equal(one.data, values[:6].reshape(3, 2)) and np.array_equal(two.data, values[6:])


def test_padding() -> None:
    assert [aligned(size) for size in (0, 1, 32, 33)] == [0, 32, 32, 64]
