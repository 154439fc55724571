"""Calibrated codes on disk: every type comes back, one without a block layout of its own too."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from gemmaq.calibration.store import Problem, Store, packed
from gemmaq.checkpoint import plain
from gemmaq.checkpoint.rows import read_rows, values_of
from gemmaq.encodings import ENCODINGS, Codec, Encoding, Kind, Quantized, codec
from gemmaq.encodings.rounding import as_bf16, as_f16
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
    source = plain("a.weight", values.codes.shape, ENCODINGS["bf16"], span=FileSpan.of(folder / "source"), offset=0)
    store, problem = Store(folder), Problem(source, encoding)
    store.append(problem, packed(problem, values))
    tensor = store.tensor(problem)
    assert (tensor.name, tensor.shape, tensor.encoding) == ("a.weight", values.codes.shape, encoding)
    with Reader() as reader:
        found: Quantized = values_of(tensor, read_rows(tensor, 0, 3, reader, bytearray()))
    return found


def check(values: Quantized, found: Quantized) -> None:
    for part in (field.name for field in fields(Quantized)):
        wanted, here = getattr(values, part), getattr(found, part)
        assert (wanted is None) == (here is None)
        assert wanted is None or np.array_equal(wanted, here)


@pytest.mark.parametrize("name", METHODS["gptq"].encodings)
def test_every_type_comes_back(name: str, tmp_path: Path) -> None:
    encoding = ENCODINGS[name]
    nearest = codec(encoding).nearest
    assert nearest is not None
    values = nearest(np.random.default_rng(1).standard_normal((3, 256)).astype(np.float32))
    if values.supers is None:
        rounded = as_f16 if encoding.scales == "f16" else as_bf16
        minima = None if values.minima is None else rounded(values.minima)
        values = replace(values, scales=rounded(values.scales), minima=minima)
    check(values, stored(encoding, values, tmp_path))


def test_a_type_without_a_block_layout_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gemmaq.calibration.store.codec", lambda encoding: Codec())
    values = random_values(WIDE, 2.0**-14)
    check(values, stored(WIDE, values, tmp_path))
    large = random_values(WIDE, 4096.0)
    (tmp_path / "large").mkdir()
    check(large, stored(WIDE, large, tmp_path / "large"))


def test_matrices_of_a_stack_come_one_after_the_other(tmp_path: Path) -> None:
    """Even if those of other types come between them."""
    (tmp_path / "source").touch()
    source = plain("a.weight", (3, 3, 128), ENCODINGS["bf16"], span=FileSpan.of(tmp_path / "source"), offset=0)
    kinds = [Problem(source, ENCODINGS[name], portable) for name in ("q4_0", "affine4") for portable in (False, True)]
    store = Store(tmp_path)
    given = {problem: [random_values(problem.encoding, 2.0**k) for k in range(3)] for problem in kinds}
    for k in range(3):
        for problem in kinds:
            store.append(problem, packed(problem, given[problem][k]))
    for problem in kinds:
        tensor = store.tensor(problem)
        for k, values in enumerate(given[problem]):
            with Reader() as reader:
                check(values, values_of(tensor, read_rows(tensor, 3 * k, 3, reader, bytearray())))


def test_scales_that_are_too_large_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too large for Q4_0"):
        stored(ENCODINGS["q4_0"], random_values(ENCODINGS["q4_0"], 1e5), tmp_path)
