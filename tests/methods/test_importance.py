"""Method importance: the bytes of real ggml with the same imatrix, and less error where it counts for MLX's types."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from blocks import K_QUANTS
from gemmaq.checkpoint.rows import weights
from gemmaq.encodings import ENCODINGS, Encoding, Kind, codec, dequantize
from gemmaq.errors import InputError
from gemmaq.files.span import Reader
from gemmaq.methods import Choice, Importance, quantize
from gemmaq.sources.open import open_source
from grids import wide
from oracles import ggml_quantize, need_ggml
from synthetic import bf16

LEGACY = ("q4_0", "q5_0", "q4_1", "q5_1", "iq4_nl", "q8_0")
SUPER = (*K_QUANTS, "iq4_xs")
SEARCHED = (*LEGACY[:-1], *SUPER)
IN_GGUF = (*SEARCHED, "q8_0")
MLX = ("affine2", "affine3-g128", "affine4", "affine4-g64", "affine5", "affine6-g64", "affine8")


@pytest.fixture(scope="session")
def real_ggml(require) -> None:
    need_ggml(require)


def choice(columns: np.ndarray, portable: bool = False) -> Choice:
    return Choice("importance", portable, Importance(np.asarray(columns, np.float32)))


def same_as_ggml(name: str, x: np.ndarray, columns: np.ndarray) -> None:
    encoding = ENCODINGS[name]
    x, columns = np.ascontiguousarray(x, np.float32), np.asarray(columns, np.float32)
    with np.errstate(all="ignore"):
        ours = codec(encoding).pack(quantize(x, encoding, choice(columns)))
    theirs = ggml_quantize(encoding.ggml_type, x, encoding.row_bytes(x.shape[1]), columns)
    wrong = (ours != theirs).any(axis=1)
    assert not wrong.any(), f"{wrong.sum()} rows differ, the first is {x[wrong.argmax()].tolist()}"


def body() -> Iterator[tuple[str, np.ndarray]]:
    """All matrices of the layers of the real 270M, f32."""
    with Reader() as reader:
        for name, tensor in open_source("sample:gemma-3-270m").tensors.items():
            if name.startswith("model.layers.") and len(tensor.shape) == 2:
                yield name, weights(tensor, 0, tensor.rows, reader)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("name", SEARCHED)
def test_the_whole_270m_gets_the_bytes_of_ggml(real_ggml, name):
    random, count = np.random.default_rng(0), 0
    some = slice(None) if name == "q4_0" else slice(None, 64)
    for _, x in body():
        x = x[some].reshape(-1, 256) if name in SUPER else x[some]
        same_as_ggml(name, x, np.exp(2 * random.standard_normal(x.shape[1])))
        count += 1
    assert count == 126


def odd_rows() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows and columns' importance at the ends of what a search must handle."""
    random = np.random.default_rng(7)
    normal = random.standard_normal((33, 512)).astype(np.float32)
    usual = np.exp(2 * random.standard_normal(512))
    outlier = normal * np.float32(0.02)
    outlier[:, 77] = 40
    ties = random.integers(-8, 8, (33, 512)) + np.float32(0.5)
    both = normal.copy()
    both[:, ::32], both[:, 1::32] = 5, -5
    holes = np.where(random.random(512) < 0.5, 0, usual)
    block = usual.copy()
    block[32:64], block[256:] = 0, 0
    one = np.zeros((4, 512), np.float32)
    one[0, 5], one[1, 300], one[2, 511], one[3, 0] = 3, -2, 1e-3, -1e-3
    return {
        "zero": (np.zeros((2, 512)), usual),
        "negative zero": (-np.zeros((2, 512)), usual),
        "zero, and so is the importance": (np.zeros((2, 512)), np.zeros(512)),
        "one value": (one, usual),
        "constant": (np.full((2, 512), 0.7), usual),
        "negative constant": (np.full((2, 512), -0.7), usual),
        "all positive": (abs(normal), usual),
        "all negative": (-abs(normal), usual),
        "far from zero": (normal * np.float32(1e-3) - 1, usual),
        "far above zero": (normal * np.float32(1e-3) + 1, usual),
        "one outlier": (outlier, usual),
        "ties": (ties / 8, usual),
        "both ends alike": (both, usual),
        "on a grid": (random.integers(-8, 8, (33, 512)) / 8, usual),
        "subnormal": (normal * np.float32(1e-40), usual),
        "around 1e-15": (normal * np.float32(1e-15), usual),
        "any magnitude": (normal * 10.0 ** random.uniform(-44, -3, normal.shape), usual),
        "large": (normal * np.float32(1e4), usual),
        "half of the importance zero": (normal, holes),
        "importance of whole blocks zero": (normal, block),
        "no importance": (normal, np.zeros(512)),
        "one column counts": (normal, np.eye(512)[40]),
        "all columns alike": (normal, np.ones(512)),
        "tiny importance": (normal, usual * 1e-37),
        "subnormal importance": (normal, usual * 1e-42),
        "huge importance": (normal, usual * 1e30),
        "importance of any magnitude": (normal, 10.0 ** random.uniform(-30, 30, 512)),
    }


@pytest.mark.oracle
@pytest.mark.parametrize("kind", odd_rows())
@pytest.mark.parametrize("name", IN_GGUF)
def test_odd_rows_get_the_bytes_of_ggml(real_ggml, name, kind):
    same_as_ggml(name, *odd_rows()[kind])


@pytest.mark.oracle
@pytest.mark.parametrize("name", IN_GGUF)
def test_random_rows_get_the_bytes_of_ggml(real_ggml, name):
    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        seed=st.integers(0, 2**32 - 1),
        rows=st.integers(1, 40),
        blocks=st.integers(1, 7),
        exponent=st.integers(-42, 3),
        spread=st.sampled_from((0, 0, 0, 1, 4)),
        zeros=st.sampled_from((0, 0, 0.5, 0.99)),
        skew=st.sampled_from((0, 1, 2, 8)),
        unseen=st.sampled_from((0, 0, 0.1, 0.9)),
    )
    @example(seed=0, rows=300, blocks=8, exponent=-2, spread=0, zeros=0, skew=2, unseen=0)
    def check(
        seed: int, rows: int, blocks: int, exponent: int, spread: int, zeros: float, skew: int, unseen: float
    ) -> None:
        random = np.random.default_rng(seed)
        shape = (rows, blocks * max(32, ENCODINGS[name].block))
        x = random.standard_normal(shape) * 10.0 ** (exponent + spread * random.uniform(-1, 1, shape))
        x = np.where(random.random(shape) < zeros, 0, x).astype(np.float32)
        columns = np.exp(skew * random.standard_normal(shape[1]))
        same_as_ggml(name, x, np.where(random.random(shape[1]) < unseen, 0, columns))

    check()


def rows_and_columns(columns: int = 640) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    x = bf16(random.standard_normal((301, columns)) * 0.02 + 0.003)
    return wide(x), np.exp(2 * random.standard_normal(columns)).astype(np.float32)


def error(name: str, x: np.ndarray, columns: np.ndarray, values) -> np.ndarray:
    """What the method makes small, by group: squares weighed by column and size."""
    encoding = ENCODINGS[name]
    off = dequantize(encoding, values).astype(np.float64) - x
    sizes = np.sqrt(np.square(x, dtype=np.float64).mean(axis=1, keepdims=True) + np.square(x, dtype=np.float64))
    return (columns * sizes * np.square(off)).reshape(-1, encoding.block).sum(axis=1)


@pytest.mark.parametrize("name", (*LEGACY, *K_QUANTS, *MLX, "bf16"))
def test_any_split_in_slabs_and_threads_gives_the_same(name):
    x, columns = rows_and_columns(512 if name in K_QUANTS else 640)
    encoding, chosen = ENCODINGS[name], choice(columns)
    whole = quantize(x, encoding, chosen)
    starts = (0, 1, 8, 9, 77, 200, 300, 301)
    slabs = [x[a:b] for a, b in pairwise(starts)]
    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(lambda slab: quantize(slab, encoding, chosen), slabs))
    if encoding.is_float:
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        return
    for part in ("codes", "scales", "minima", "supers", "super_minima"):
        if getattr(whole, part) is not None:
            np.testing.assert_array_equal(np.concatenate([getattr(p, part) for p in parts]), getattr(whole, part))


@pytest.mark.parametrize("name", ("q8_0", "f32", "f16", "bf16"))
def test_what_has_bits_enough_is_rounded_as_nearest_has_it(name):
    x, columns = rows_and_columns()
    for portable in (False, True):
        ours = quantize(x, ENCODINGS[name], choice(columns, portable))
        theirs = quantize(x, ENCODINGS[name], Choice("nearest", portable))
        for part in ("codes", "scales") if name == "q8_0" else ("__array__",):
            a, b = (getattr(v, part) if name == "q8_0" else v for v in (ours, theirs))
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", MLX)
def test_affine_groups_err_less_than_mlx_has_them(name):
    x, columns = rows_and_columns()
    encoding = ENCODINGS[name]
    ours, theirs = quantize(x, encoding, choice(columns)), quantize(x, encoding, Choice("nearest"))
    for part in (ours.scales, ours.minima):
        np.testing.assert_array_equal(wide(bf16(part)), part)
    assert ours.codes.max() < 1 << encoding.bits
    stored = type(theirs)(theirs.codes, wide(bf16(theirs.scales)), wide(bf16(theirs.minima)))
    mine, known = error(name, x, columns, ours), error(name, x, columns, stored)
    assert (mine <= known * 1.0001).all()
    assert mine.sum() < (0.55 if encoding.bits == 4 else 0.8) * known.sum()


@pytest.mark.parametrize("kind", odd_rows())
@pytest.mark.parametrize("name", ("affine4-g64", "affine8"))
def test_affine_groups_of_odd_rows_err_no_more_than_mlx_has_them(name, kind):
    x, columns = (np.ascontiguousarray(part, np.float32) for part in odd_rows()[kind])
    encoding = ENCODINGS[name]
    ours, theirs = quantize(x, encoding, choice(columns)), quantize(x, encoding, Choice("nearest"))
    assert np.isfinite(ours.scales).all() and np.isfinite(ours.minima).all()
    assert ours.codes.max() < 1 << encoding.bits
    stored = type(theirs)(theirs.codes, wide(bf16(theirs.scales)), wide(bf16(theirs.minima)))
    mine, known = error(name, x, columns, ours), error(name, x, columns, stored)
    assert (mine <= known * 1.001 + 1e-38).all()


@pytest.mark.parametrize("name", LEGACY)
def test_portable_scales_cost_little(name):
    x, columns = rows_and_columns()
    encoding = ENCODINGS[name]
    own, ported = (quantize(x, encoding, choice(columns, portable)) for portable in (False, True))
    for part in (ported.scales, ported.minima):
        if part is not None:
            np.testing.assert_array_equal(wide(bf16(part)), part)
            np.testing.assert_array_equal(part.astype(np.float16).astype(np.float32), part)
    assert ported.codes.max() < 1 << encoding.bits
    assert error(name, x, columns, ported).sum() < 1.05 * error(name, x, columns, own).sum()
    assert error(name, x, columns, own).sum() <= error(name, x, columns, quantize(x, encoding, Choice("nearest"))).sum()


def test_what_cannot_be_done_is_told():
    x, columns = rows_and_columns(256)
    with pytest.raises(InputError, match="needs an importance matrix or calibration text") as told:
        quantize(x, ENCODINGS["q4_0"], Choice("importance"))
    assert "--imatrix" in told.value.hint and "--text" in told.value.hint
    opaque = Encoding("tq1_0", Kind.OPAQUE, 256, 54, "foreign", bits=2)
    with pytest.raises(InputError, match="cannot write TQ1_0") as told:
        quantize(x, opaque, choice(columns))
    assert "q4_0" in told.value.hint and "affineN" in told.value.hint and "q4_k" in told.value.hint
    with pytest.raises(InputError, match="640 columns does not fit rows of 256"):
        quantize(x, ENCODINGS["q4_0"], choice(np.ones(640)))


def test_choices_can_be_hashed():
    columns = np.ones(32, np.float32)
    one, other = choice(columns), choice(columns)
    assert one != other and len({one, other, one}) == 2
