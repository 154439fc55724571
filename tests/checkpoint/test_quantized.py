"""Which type the codes of a folder are in, and arrays that contradict each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gemmaq.checkpoint.quantized import quantized_tensor
from gemmaq.errors import InputError
from gemmaq.files.safetensors_header import Entry
from gemmaq.files.span import FileSpan
from synthetic import bf16

ROWS, COLUMNS = 4, 64


def arrays(path: Path, bits: int, group: int, zero: int | None) -> dict[str, tuple[FileSpan, Entry]]:
    """The arrays of an MLX matrix of zeros; `zero` None gives minima that are no multiple of the scale."""
    scales = np.linspace(0.5, 1.5, ROWS * COLUMNS // group, dtype=np.float32).reshape(ROWS, -1)
    biases = scales + 0.25 if zero is None else -zero * scales
    stored = {
        "weight": ("U32", np.zeros((ROWS, COLUMNS * bits // 32), np.uint32)),
        "scales": ("BF16", bf16(scales)),
        "biases": ("BF16", bf16(biases)),
    }
    path.write_bytes(b"".join(array.tobytes() for _, array in stored.values()))
    span, at, found = FileSpan.of(path), 0, {}
    for suffix, (dtype, array) in stored.items():
        found[suffix] = (span, Entry(f"m.{suffix}", dtype, array.shape, at, array.nbytes))
        at += array.nbytes
    return found


@pytest.mark.parametrize(
    ("bits", "group", "zero", "name"),
    [
        (4, 32, 8, "q4_0"),
        (8, 32, 128, "q8_0"),
        (5, 32, 16, "q5_0"),
        (4, 32, None, "affine4"),
        (4, 64, None, "affine4-g64"),
        (8, 64, None, "affine8-g64"),
        (2, 32, None, "affine2"),
        (3, 64, None, "affine3-g64"),
        (5, 32, None, "affine5"),
        (6, 64, 32, "affine6-g64"),
    ],
)
def test_the_type_follows_from_bits_groups_and_biases(
    bits: int, group: int, zero: int | None, name: str, tmp_path: Path
) -> None:
    tensor = quantized_tensor("m.weight", "mlx", arrays(tmp_path / "a", bits, group, zero), (ROWS, COLUMNS))
    assert (tensor.encoding.name, tensor.shape, tensor.layout) == (name, (ROWS, COLUMNS), "mlx")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda a: a.pop("biases"), "no quantization known"),
        (lambda a: a.update(weight_zero_point=a["scales"]), "asymmetrically"),
        (lambda a: a.update(weight=(a["weight"][0], Entry("m.weight", "F32", (ROWS, 8), 0, 128))), "belong together"),
        (lambda a: a.update(biases=(a["biases"][0], Entry("m.biases", "BF16", (ROWS, 1), 0, 8))), "scales"),
    ],
)
def test_arrays_that_contradict_each_other_are_refused(change, word, tmp_path) -> None:
    broken = arrays(tmp_path / "a", 4, 32, 8)
    change(broken)
    with pytest.raises(InputError, match=word) as refused:
        quantized_tensor("m.weight", "mlx", broken, (ROWS, COLUMNS))
    assert "m.weight" in str(refused.value)


def test_a_width_without_a_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="4 bits in groups of 16"):
        quantized_tensor("m.weight", "mlx", arrays(tmp_path / "a", 4, 16, None), (ROWS, COLUMNS))
