"""Calibrated codes on disk: every type comes back, one without a block layout of its own too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemmaq.calibration.store import Store
from gemmaq.checkpoint import plain
from gemmaq.checkpoint.rows import read_rows, values_of
from gemmaq.encodings import ENCODINGS, Codec, Encoding, Kind, Quantized
from gemmaq.errors import InputError
from gemmaq.files.span import FileSpan, Reader
from gemmaq.methods import METHODS

WIDE = Encoding("q4_w", Kind.LINEAR, 64, 34, "wide", bits=4, zero=8, scales="f16", mlx=True)


def random_values(encoding: Encoding, scale: float = 1.0) -> Quantized:
    random = np.random.default_rng(1)
    codes = random.integers(0, 1 << encoding.bits, (3, 128), np.uint8)
    scales = random.integers(1, 9, (3, 128 // encoding.block)).astype(np.float32) * np.float32(scale)
    return Quantized(codes, scales, -scales * 2 if encoding.zero is None else None)


def stored(encoding: Encoding, values: Quantized, folder: Path) -> Quantized:
    (folder / "source").touch()
    source = plain("a.weight", (3, 128), ENCODINGS["bf16"], span=FileSpan.of(folder / "source"), offset=0)
    tensor = Store(folder).put(source, encoding, values)
    assert (tensor.name, tensor.shape, tensor.encoding) == ("a.weight", (3, 128), encoding)
    with Reader() as reader:
        found: Quantized = values_of(tensor, read_rows(tensor, 0, 3, reader, bytearray()))
    return found


def check(values: Quantized, found: Quantized) -> None:
    assert np.array_equal(values.codes, found.codes)
    assert np.array_equal(values.scales, found.scales)
    assert (values.minima is None) == (found.minima is None)
    if values.minima is not None:
        assert np.array_equal(values.minima, found.minima)


@pytest.mark.parametrize("name", METHODS["gptq"].encodings)
def test_every_type_comes_back(name: str, tmp_path: Path) -> None:
    values = random_values(ENCODINGS[name])
    check(values, stored(ENCODINGS[name], values, tmp_path))


def test_a_type_without_a_block_layout_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemmaq.calibration.store.codec", lambda encoding: Codec())
    values = random_values(WIDE, 2.0**-14)
    check(values, stored(WIDE, values, tmp_path))
    large = random_values(WIDE, 4096.0)
    (tmp_path / "large").mkdir()
    check(large, stored(WIDE, large, tmp_path / "large"))


def test_scales_that_are_too_large_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too large for Q4_0"):
        stored(ENCODINGS["q4_0"], random_values(ENCODINGS["q4_0"], 1e5), tmp_path)
