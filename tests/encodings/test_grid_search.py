"""Codes of IQ2 and IQ3 types: the bytes of real ggml, with and without an importance matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from blocks import GRIDS, decode, encode, odd_weights
from gemmaq.encodings import ENCODINGS, codec, dequantize
from gemmaq.errors import InputError
from gemmaq.methods import Choice, Importance, quantize
from oracles import ggml_quantize, need_ggml

REFUSED = ("huge", "largest bf16")
"""Odd weights for which ggml stops the program."""


@pytest.fixture(scope="session")
def real_ggml(require) -> None:
    need_ggml(require)


def misplaced(name: str, x: np.ndarray) -> np.ndarray:
    """Rows in which ggml writes IQ3_S groups in the wrong place: behind a group of zeros, within a super-block."""
    zero = (x.reshape(len(x), -1, 8, 32) == 0).all(axis=3)
    return (np.maximum.accumulate(zero, axis=2) & ~zero).any(axis=(1, 2)) & (name == "iq3_s")


def same_as_ggml(name: str, x: np.ndarray, columns: np.ndarray | None) -> None:
    encoding, loops = ENCODINGS[name], codec(ENCODINGS[name])
    x = np.ascontiguousarray(x, np.float32)
    x = x[~misplaced(name, x)]
    if not len(x):
        return
    if columns is not None:
        columns = np.asarray(columns, np.float32)
    with np.errstate(all="ignore"):
        ours = loops.pack(loops.nearest(x) if columns is None else loops.weighted(x, columns))
    theirs = ggml_quantize(encoding.ggml_type, x, encoding.row_bytes(x.shape[1]), columns)
    wrong = (ours != theirs).any(axis=1)
    assert not wrong.any(), f"{wrong.sum()} rows differ, the first is {x[wrong.argmax()].tolist()}"


def unweighted(name: str) -> bool:
    return codec(ENCODINGS[name]).nearest is not None


@pytest.mark.oracle
@pytest.mark.parametrize("name", GRIDS)
def test_odd_weights_get_the_bytes_of_ggml(real_ggml, name):
    for kind, x in odd_weights().items():
        if kind in REFUSED:
            continue
        random = np.random.default_rng(len(kind))
        columns = np.exp(2 * random.standard_normal(x.shape[1]))
        holes = np.where(random.random(x.shape[1]) < 0.5, 0, columns)
        for importance in (columns, holes, np.zeros_like(columns), columns * 1e-37):
            same_as_ggml(name, x, importance)
        if unweighted(name):
            same_as_ggml(name, x, None)


@pytest.mark.oracle
@pytest.mark.parametrize("name", GRIDS)
def test_random_weights_get_the_bytes_of_ggml(real_ggml, name):
    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        seed=st.integers(0, 2**32 - 1),
        rows=st.integers(1, 12),
        blocks=st.integers(1, 3),
        exponent=st.integers(-42, 3),
        spread=st.sampled_from((0, 0, 0, 1, 4)),
        zeros=st.sampled_from((0, 0, 0.5, 0.99)),
        skew=st.sampled_from((None, 0, 1, 2, 8)),
        unseen=st.sampled_from((0, 0, 0.1, 0.9)),
    )
    @example(seed=0, rows=60, blocks=6, exponent=-2, spread=0, zeros=0, skew=2, unseen=0)
    @example(seed=0, rows=60, blocks=6, exponent=-2, spread=0, zeros=0, skew=None, unseen=0)
    def check(
        seed: int, rows: int, blocks: int, exponent: int, spread: int, zeros: float, skew: int | None, unseen: float
    ) -> None:
        random = np.random.default_rng(seed)
        shape = (rows, blocks * 256)
        x = random.standard_normal(shape) * 10.0 ** (exponent + spread * random.uniform(-1, 1, shape))
        x = np.where(random.random(shape) < zeros, 0, x).astype(np.float32)
        if skew is not None:
            columns = np.exp(skew * random.standard_normal(shape[1]))
            same_as_ggml(name, x, np.where(random.random(shape[1]) < unseen, 0, columns))
        elif unweighted(name):
            same_as_ggml(name, x, None)

    check()


@pytest.mark.oracle
@pytest.mark.parametrize("name", GRIDS)
def test_real_weights_get_the_bytes_of_ggml(real_ggml, sample_bf16, name):
    path = sample_bf16 / "model.safetensors"
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        file.seek(8 + size + 512 * 640 * 2 * 8)
        bits = np.frombuffer(file.read(1 << 17), "<u2").astype(np.uint32) << 16
    x = bits.view(np.float32).reshape(-1, 512)
    same_as_ggml(name, x, np.exp(2 * np.random.default_rng(0).standard_normal(512)))
    if unweighted(name):
        same_as_ggml(name, x, None)


def behind_zeros() -> np.ndarray:
    x = np.zeros((1, 256), np.float32)
    x[0, 64:96] = np.linspace(-1, 1, 32)
    return x


@pytest.mark.oracle
def test_ggml_writes_a_group_behind_zeros_in_the_wrong_place(real_ggml):
    x, encoding = behind_zeros(), ENCODINGS["iq3_s"]
    read = decode("iq3_s", ggml_quantize(encoding.ggml_type, x, encoding.block_bytes))
    assert np.abs(read - x)[0, 64:96].max() > 0.5


def test_a_group_behind_zeros_is_written_where_it_belongs():
    x = behind_zeros()
    read = decode("iq3_s", encode("iq3_s", x))
    assert np.abs(read - x)[0, 64:96].max() < 0.25
    assert np.abs(read)[0, :64].max() < 0.01


@pytest.mark.parametrize("name", GRIDS)
def test_weights_are_closer_to_those_that_count(name):
    random = np.random.default_rng(5)
    x, columns = (random.standard_normal((24, 512)) * 0.02).astype(np.float32), np.ones(512, np.float32)
    plain, weighed = (weighted(name, x, c) for c in (columns, np.where(np.arange(512) % 4 == 0, 100, columns)))
    assert weighed[:, ::4].mean() < 0.9 * plain[:, ::4].mean()
    assert plain.mean() < {"2": 0.13, "3": 0.04}[name[2]] * np.square(x).mean()


def weighted(name: str, x: np.ndarray, columns: np.ndarray) -> np.ndarray:
    encoding = ENCODINGS[name]
    choice = Choice("importance", False, Importance(np.asarray(columns, np.float32)))
    return np.square(dequantize(encoding, quantize(x, encoding, choice)) - x)


@pytest.mark.parametrize("name", GRIDS)
def test_any_split_gives_the_same(name):
    random, loops = np.random.default_rng(6), codec(ENCODINGS[name])
    x, columns = random.standard_normal((7, 512)).astype(np.float32), random.random(512).astype(np.float32)
    whole = loops.pack(loops.weighted(x, columns))
    parts = [loops.pack(loops.weighted(x[a:b], columns)) for a, b in ((0, 1), (1, 2), (2, 7))]
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("name", GRIDS)
def test_weights_beyond_its_scale_do_not_become_others(name):
    x = np.random.default_rng(7).standard_normal((2, 256)).astype(np.float32)
    loops = codec(ENCODINGS[name])
    for size in (1e9, 1e20, 3e37):
        with np.errstate(all="ignore"):
            values = loops.read(loops.pack(loops.weighted(x * np.float32(size), np.ones(256, np.float32))))
            assert not np.isfinite(dequantize(ENCODINGS[name], values)).all(axis=1).any()


@pytest.mark.parametrize("name", ("iq2_xs", "iq2_xxs"))
def test_types_without_a_plain_rule_say_so(name):
    with pytest.raises(InputError, match=f"{name.upper()} needs an importance matrix"):
        quantize(np.ones((1, 256), np.float32), ENCODINGS[name], Choice("nearest"))
