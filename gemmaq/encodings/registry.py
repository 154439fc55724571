"""The registry of encodings: an entry for each type, in the order that help and messages list them."""

from __future__ import annotations

from gemmaq.encodings.encoding import Encoding, Kind
from gemmaq.encodings.small_floats import E2M1, E4M3


def _float(name: str, width: int, ggml_type: int, file_type: int, mlx: bool = False) -> Encoding:
    return Encoding(name, Kind.FLOAT, 1, width, "floats", ggml_type=ggml_type, file_type=file_type, mlx=mlx)


_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_IQ2 = (8, -8, 25, -25, 43, -43)
_IQ3_XXS = (4, -4, 12, -12, 20, -20, 28, -28, 36, -36, 44, -44, 52, -52, 62, -62)
_IQ3_S = (1, -1, 3, -3, 5, -5, 7, -7, 9, -9, 11, -11, 13, -13, 15, -15)


def _grid(name: str, size: int, bits: int, codebook: tuple[int, ...], *, numbers: tuple[int, int]) -> Encoding:
    """A type of ggml whose magnitudes lie on a grid; `numbers` are those of the type and of the file type."""
    return Encoding(
        name, Kind.GRID, 256, size, name[:3], bits=bits, codebook=codebook, scales="f16", ggml_type=numbers[0],
        file_type=numbers[1], fallback="iq4_nl", weighted=True, needs_importance=name != "iq3_s",
        plain=name not in ("iq2_xs", "iq2_xxs"),
    )  # fmt: skip


def _affine(bits: int, group: int) -> Encoding:
    """A type of MLX's own: a BF16 scale and minimum a group."""
    name, size = f"affine{bits}" + (f"-g{group}" if group != 32 else ""), group * bits // 8 + 4
    return Encoding(name, Kind.MINIMA, group, size, "affine", bits=bits, scales="bf16", mlx=True)


def _symmetric(bits: int, group: int) -> Encoding:
    """A type of compressed-tensors' own: codes around 0, a BF16 scale a group, or a row for 0. MLX holds groups too."""
    name, size = f"int{bits}-" + (f"g{group}" if group else "channel"), group * bits // 8 + 2
    return Encoding(
        name, Kind.LINEAR, group, size, "symmetric", bits=bits, zero=1 << bits - 1, scales="bf16", mlx=group > 0,
        compressed_tensors=True, weighted=bits < 8,
    )  # fmt: skip


def _minifloat(
    name: str,
    block: int,
    codebook: tuple[float, ...],
    scales: str,
    numbers: tuple[int | None, int | None] = (None, None),
) -> Encoding:
    """A type with floating point codes, and a scale of one byte a block; `numbers` are those of GGUF."""
    bits = len(codebook).bit_length() - 1
    return Encoding(
        name, Kind.MINIFLOAT, block, block * bits // 8 + 1, "microscaling", bits=bits, scales=scales, codebook=codebook,
        ggml_type=numbers[0], file_type=numbers[1], mlx=True, compressed_tensors=True,
    )  # fmt: skip


ENCODINGS: dict[str, Encoding] = {
    e.name: e
    for e in (
        _float("f32", 4, ggml_type=0, file_type=0),
        _float("f16", 2, ggml_type=1, file_type=1),
        _float("bf16", 2, ggml_type=30, file_type=32, mlx=True),
        Encoding(
            "q8_0", Kind.LINEAR, 32, 34, "legacy", bits=8, zero=128, scales="f16",
            ggml_type=8, file_type=7, mlx=True, compressed_tensors=True,
        ),
        Encoding(
            "q4_0", Kind.LINEAR, 32, 18, "legacy", bits=4, zero=8, scales="f16",
            ggml_type=2, file_type=2, mlx=True, compressed_tensors=True,
        ),
        Encoding("q4_1", Kind.MINIMA, 32, 20, "legacy", bits=4, scales="f16", ggml_type=3, file_type=3, mlx=True),
        Encoding(
            "q5_0", Kind.LINEAR, 32, 22, "legacy", bits=5, zero=16, scales="f16", ggml_type=6, file_type=8, mlx=True
        ),
        Encoding("q5_1", Kind.MINIMA, 32, 24, "legacy", bits=5, scales="f16", ggml_type=7, file_type=9),
        Encoding(
            "iq4_nl", Kind.CODEBOOK, 32, 18, "iquants", bits=4, scales="f16", ggml_type=20, file_type=25,
            weighted=True, codebook=_IQ4,
        ),
        Encoding(
            "q6_k", Kind.SUPER, 256, 210, "kquants", bits=6, zero=32, scales="f16",
            ggml_type=14, file_type=18, fallback="q8_0", weighted=True,
        ),
        Encoding(
            "q4_k", Kind.SUPER, 256, 144, "kquants_affine", bits=4, scales="f16",
            ggml_type=12, file_type=15, fallback="q5_0", weighted=True,
        ),
        Encoding(
            "q5_k", Kind.SUPER, 256, 176, "kquants_affine", bits=5, scales="f16",
            ggml_type=13, file_type=17, fallback="q5_1", weighted=True,
        ),
        Encoding(
            "q3_k", Kind.SUPER, 256, 110, "kquants", bits=3, zero=4, scales="f16",
            ggml_type=11, file_type=12, fallback="q4_0", weighted=True,
        ),
        Encoding(
            "q2_k", Kind.SUPER, 256, 84, "kquants_affine", bits=2, scales="f16",
            ggml_type=10, file_type=10, fallback="q4_0", weighted=True,
        ),
        Encoding(
            "iq4_xs", Kind.SUPER, 256, 136, "iquants", bits=4, scales="f16", ggml_type=23, file_type=30,
            fallback="iq4_nl", weighted=True, codebook=_IQ4,
        ),
        _grid("iq3_s", 110, 4, _IQ3_S, numbers=(21, 26)),
        _grid("iq3_xxs", 98, 4, _IQ3_XXS, numbers=(18, 23)),
        _grid("iq2_s", 82, 3, _IQ2, numbers=(22, 28)),
        _grid("iq2_xs", 74, 3, _IQ2, numbers=(17, 20)),
        _grid("iq2_xxs", 66, 3, _IQ2, numbers=(16, 19)),
        _minifloat("mxfp4", 32, E2M1, "e8m0", numbers=(39, 38)),
        _minifloat("nvfp4", 16, E2M1, "e4m3"),
        _minifloat("mxfp8", 32, E4M3, "e8m0"),
        Encoding(
            "fp8", Kind.MINIFLOAT, 0, 2, "microscaling", bits=8, scales="bf16", codebook=E4M3, compressed_tensors=True
        ),
        *(_affine(bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)),
        *(_symmetric(bits, group) for bits, group in ((4, 64), (4, 128), (4, 0), (8, 0))),
    )
}  # fmt: skip
