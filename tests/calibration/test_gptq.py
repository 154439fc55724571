"""Method gptq: less error in what a layer gives than other methods, scales as they are stored, the same bits always."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gemmaq.calibration import gptq
from gemmaq.calibration.gptq import Blocks, Settings
from gemmaq.calibration.store import Problem, Store, packed
from gemmaq.checkpoint.rows import read_rows, values_of
from gemmaq.encodings import ENCODINGS, Encoding, Kind, Quantized, dequantize
from gemmaq.errors import InputError
from gemmaq.files.span import FileSpan, Reader
from gemmaq.inference import device as forward
from gemmaq.inference.device import Device
from gemmaq.methods import METHODS, Choice, Importance, quantize
from grids import wide
from oracles import need
from synthetic import bf16

SOME = ("affine3", "affine4", "affine4-g64", "affine8", "int4-g128", "int4-channel", "int8-channel")
NAMES = tuple(n for n in METHODS["gptq"].encodings if n in SOME or ENCODINGS[n].scales != "bf16")
FOUR, EIGHT = [n for n in NAMES if ENCODINGS[n].bits < 8], [n for n in NAMES if ENCODINGS[n].bits == 8]
ROWS, COLUMNS = 96, 512
PARTS = tuple(field.name for field in fields(Quantized))


@pytest.fixture(scope="module", autouse=True)
def _torch(require: Callable[[bool, str], None]) -> None:
    need(require, "torch", "transformers")


@pytest.fixture
def device() -> Iterator[Device]:
    with forward.open_device("cpu", 2) as made:
        yield made


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return wide(bf16(np.random.default_rng(3).standard_normal((ROWS, COLUMNS)) * 0.02 + 0.003))


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    """Correlated, and of very different size from column to column: f64 [tokens, columns]."""
    random = np.random.default_rng(5)
    mixed = random.standard_normal((1500, 40)) @ random.standard_normal((40, COLUMNS))
    return (mixed + 0.5 * random.standard_normal(mixed.shape)) * np.exp(random.standard_normal(COLUMNS))


def hessian_of(inputs: np.ndarray):
    import torch

    return torch.from_numpy((inputs.T @ inputs).astype(np.float32))


def solved(
    weights: np.ndarray,
    inputs: np.ndarray,
    encoding: Encoding,
    device: Device,
    portable: bool = False,
    settings: Settings | None = None,
) -> Quantized:
    known = gptq.invert(hessian_of(inputs), settings or Settings(), blocks=Blocks.of(encoding), device=device)
    return gptq.quantize(weights, known, encoding, portable=portable, device=device)


def output_error(weights: np.ndarray, values: Quantized, encoding: Encoding, inputs: np.ndarray) -> float:
    """|(W - Q) X|^2 over |W X|^2."""
    off = dequantize(encoding, values).astype(np.float64) - weights
    return float(np.square(inputs @ off.T).sum() / np.square(inputs @ weights.astype(np.float64).T).sum())


def same(a: Quantized, b: Quantized) -> None:
    for part in PARTS:
        x, y = getattr(a, part), getattr(b, part)
        assert (x is None) == (y is None)
        if x is not None:
            np.testing.assert_array_equal(x, y, err_msg=part)


@contextmanager
def threads(count: int) -> Iterator[Device]:
    with forward.open_device("cpu", count) as made:
        yield made


# What it is for


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_what_a_layer_gives_errs_less_than_with_other_methods(name, act_order, weights, inputs, device):
    encoding = ENCODINGS[name]
    importance = Importance(np.square(inputs).mean(axis=0).astype(np.float32))
    ours = output_error(
        weights, solved(weights, inputs, encoding, device, False, Settings(0.01, act_order)), encoding, inputs
    )
    plain = output_error(weights, quantize(weights, encoding, Choice("nearest")), encoding, inputs)
    weighed = quantize(weights, encoding, Choice("importance", False, importance))
    assert ours < 0.5 * plain
    assert ours < 0.65 * output_error(weights, weighed, encoding, inputs)


@pytest.mark.parametrize("name", FOUR)
def test_fresh_inputs_of_the_same_kind_gain_too(name, weights, inputs, device):
    seen, fresh, encoding = inputs[:1000], inputs[1000:], ENCODINGS[name]
    ours = output_error(weights, solved(weights, seen, encoding, device), encoding, fresh)
    assert ours < 0.6 * output_error(weights, quantize(weights, encoding, Choice("nearest")), encoding, fresh)


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "affine4-g64"])
def test_groups_with_large_inputs_first_err_less(name, weights, inputs, device):
    skewed = inputs * np.repeat(np.exp(2 * np.random.default_rng(0).standard_normal(COLUMNS // 64)), 64)
    first, lying = (
        output_error(
            weights,
            solved(weights, skewed, ENCODINGS[name], device, False, Settings(0.01, act_order)),
            ENCODINGS[name],
            skewed,
        )
        for act_order in (True, False)
    )
    assert first < 0.95 * lying


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_whole_row_with_one_scale_gains_too(bits, act_order, weights, inputs, device):
    """Its columns are quantized in any order."""
    encoding = Encoding("whole", Kind.LINEAR, 0, 2, "none", bits=bits, zero=1 << (bits - 1), scales="bf16")
    known = gptq.invert(hessian_of(inputs), Settings(0.01, act_order), blocks=Blocks.of(encoding), device=device)
    assert sorted(known.order) == list(range(COLUMNS))
    assert (np.diff(known.diagonal[known.order]) <= 0).all() == act_order
    values = gptq.quantize(weights, known, encoding, portable=False, device=device)
    assert values.scales.shape == (ROWS, 1) and (wide(bf16(values.scales)) == values.scales).all()
    rounded = replace(values, codes=plainly(weights, values, encoding).astype(np.uint8))
    ours = output_error(weights, values, encoding, inputs)
    assert ours < 0.5 * output_error(weights, rounded, encoding, inputs)
    ends = (np.abs(weights).max(axis=1, keepdims=True) / ((1 << (bits - 1)) - 1)).astype(np.float32)
    usual = replace(values, scales=ends)
    usual = replace(usual, codes=plainly(weights, usual, encoding).astype(np.uint8))
    assert ours < 0.5 * output_error(weights, usual, encoding, inputs)


# What it is


def plainly(weights: np.ndarray, values: Quantized, encoding: Encoding) -> np.ndarray:
    """The codes of plain rounding with the scales that were chosen."""
    zero = np.zeros_like(values.codes)
    one = np.ones_like(values.codes)
    minima = dequantize(encoding, replace(values, codes=zero)).astype(np.float64)
    scales = dequantize(encoding, replace(values, codes=one)).astype(np.float64) - minima
    if encoding.codebook:
        scales /= encoding.codebook[1] - encoding.codebook[0]
        middles = (np.array(encoding.codebook[1:]) + encoding.codebook[:-1]) / 2
        with np.errstate(all="ignore"):
            return np.searchsorted(middles, np.where(scales == 0, 0, weights / scales), side="right")
    with np.errstate(all="ignore"):
        codes = np.where(scales == 0, encoding.zero or 0, np.rint((weights - minima) / scales))
    return np.clip(codes, 0, (1 << encoding.bits) - 1)


@pytest.mark.parametrize("name", NAMES)
def test_without_correlation_nothing_is_fed_back(name, weights, device):
    encoding = ENCODINGS[name]
    values = solved(weights, np.eye(COLUMNS), encoding, device)
    wanted = plainly(weights, values, encoding)
    differs = np.abs(values.codes - wanted)
    assert differs.max() <= 1 and differs.mean() < 1e-3  # ties, which f32 and f64 see differently
    scaled = np.diag(np.exp(np.random.default_rng(1).standard_normal(COLUMNS)))
    values = solved(weights, scaled, encoding, device, settings=Settings(1.0))
    assert np.abs(values.codes - plainly(weights, values, encoding)).mean() < 1e-3


@pytest.mark.parametrize("act_order", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_the_first_column_is_rounded_plainly(name, act_order, weights, inputs, device):
    encoding = ENCODINGS[name]
    known = gptq.invert(hessian_of(inputs), Settings(0.01, act_order), blocks=Blocks.of(encoding), device=device)
    values = gptq.quantize(weights, known, encoding, portable=False, device=device)
    first = known.order[0]
    assert act_order or first == 0
    np.testing.assert_array_equal(values.codes[:, first], plainly(weights, values, encoding)[:, first])
    differ = (values.codes != plainly(weights, values, encoding)).mean(axis=0)
    assert (differ > 0).mean() > (0.5 if encoding.bits < 8 else 0.9)


@pytest.mark.parametrize("name", FOUR)
def test_scales_of_the_first_group_are_searched_with_the_inputs_sizes(name, weights, inputs, device):
    encoding = ENCODINGS[name]
    group = slice(0, encoding.group(COLUMNS))
    values = solved(weights, inputs, encoding, device, settings=Settings(0.01, act_order=False))
    importance = np.square(inputs).mean(axis=0)[group]

    def weighed(found: Quantized) -> np.ndarray:
        """By row, the least error that the first group's scales allow."""
        codes = plainly(weights, found, encoding).astype(np.uint8)
        off = dequantize(encoding, replace(found, codes=codes))[:, group] - weights[:, group]
        return (importance * np.square(off.astype(np.float64))).sum(axis=1)

    ours, theirs = weighed(values), weighed(quantize(weights, encoding, Choice("nearest")))
    assert ours.sum() < 0.9 * theirs.sum()
    assert (ours <= 1.01 * theirs).mean() > 0.97


def test_feedback_is_that_of_the_paper(weights, inputs, device):
    """GPTQ as the paper has it: H^-1 in f64, its upper Cholesky factor, column by column, with the scales chosen."""
    encoding = ENCODINGS["q4_0"]
    values = solved(weights, inputs, encoding, device, settings=Settings(0.01, act_order=False))
    scales = np.repeat(values.scales, 32, axis=1).astype(np.float64)
    hessian = inputs.T @ inputs
    hessian += 0.01 * np.diag(hessian).mean() * np.eye(COLUMNS)
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    rest, codes = weights.astype(np.float64), np.empty_like(values.codes)
    for i in range(COLUMNS):
        level = np.clip(np.rint(rest[:, i] / scales[:, i]), -8, 7)
        codes[:, i] = level + 8
        rest[:, i:] -= np.outer((rest[:, i] - level * scales[:, i]) / upper[i, i], upper[i, i:])
    untouched = (codes == values.codes).all(
        axis=1
    )  # a row where f32 rounds a tie otherwise goes its own way from there
    assert untouched.mean() > 0.9


# Hessians


@pytest.mark.parametrize("columns", [64, 1312])
@pytest.mark.parametrize("act_order", [True, False])
def test_the_factor_is_of_the_inverse_in_the_order_taken(columns, act_order, device):
    random = np.random.default_rng(2)
    x = random.standard_normal((2 * columns, columns)) * np.exp(0.5 * random.standard_normal(columns))
    known = gptq.invert(hessian_of(x), Settings(0.1, act_order), blocks=Blocks(32), device=device)
    upper = known.Hinv.double().numpy()
    hessian = x.T @ x
    np.testing.assert_allclose(known.diagonal, np.diag(hessian), rtol=1e-5)
    assert not np.tril(upper, -1).any() and known.dampening_frac == 0.1
    hessian += 0.1 * np.diag(hessian).mean() * np.eye(columns)
    hessian = hessian[known.order][:, known.order]
    np.testing.assert_allclose(upper.T @ upper @ hessian, np.eye(columns), atol=2e-4)
    groups = known.order.reshape(-1, 32)
    assert sorted(known.order) == list(range(columns)) and (np.diff(groups, axis=1) == 1).all()
    if not act_order:
        assert known.order.tolist() == list(range(columns))
    else:
        assert (np.diff(known.diagonal[groups].sum(axis=1)) <= 0).all()


@pytest.mark.parametrize("size", [0, 64, 256])
def test_columns_of_held_blocks_are_taken_in_any_order(size):
    """Blocks stay together, and inside them those with the largest inputs come first."""
    diagonal = np.exp(np.random.default_rng(4).standard_normal(768)).astype(np.float32)
    order, lying = (Blocks(size, held).order(diagonal).reshape(-1, size or 768) for held in (True, False))
    assert (np.diff(diagonal[order], axis=1) <= 0).all() and (np.diff(lying, axis=1) == 1).all()
    np.testing.assert_array_equal(np.sort(order, axis=1), lying)
    assert (np.diff(diagonal[lying].sum(axis=1)) <= 0).all()


def test_columns_that_get_no_input_harm_nothing(weights, inputs, device):
    dead = inputs.copy()
    dead[:, 40:50] = dead[:, 64:96] = 0
    for name in NAMES:
        encoding = ENCODINGS[name]
        values = solved(weights, dead, encoding, device)
        assert np.isfinite(dequantize(encoding, values)).all()
        assert output_error(weights, values, encoding, dead) < 0.5 * output_error(
            weights, quantize(weights, encoding, Choice("nearest")), encoding, dead
        )
    all_dead = solved(weights, np.zeros((4, COLUMNS)), ENCODINGS["q4_0"], device)
    assert np.isfinite(all_dead.scales).all()


def test_a_hessian_that_is_not_definite_gets_more_damping(weights, inputs, device):
    few = inputs[:20]
    known = gptq.invert(hessian_of(few), Settings(1e-9), blocks=Blocks(32), device=device)
    assert known.dampening_frac > 1e-9
    values = gptq.quantize(weights, known, ENCODINGS["q4_0"], portable=False, device=device)
    assert output_error(weights, values, ENCODINGS["q4_0"], few) < 0.5 * output_error(
        weights, quantize(weights, ENCODINGS["q4_0"], Choice("nearest")), ENCODINGS["q4_0"], few
    )
    indefinite = hessian_of(inputs)
    indefinite[3, 200] = indefinite[200, 3] = 3 * (indefinite[3, 3] * indefinite[200, 200]).sqrt()
    known = gptq.invert(indefinite.clone(), Settings(), blocks=Blocks(32), device=device)
    assert known.dampening_frac > 0.01 and bool(known.Hinv.isfinite().all())
    indefinite[3, 200] = indefinite[200, 3] = 1e30
    with pytest.raises(InputError, match="do not determine their Hessian") as told:
        gptq.invert(indefinite, Settings(), blocks=Blocks(32), device=device)
    assert "text" in str(told.value.hint)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("at", [(7, 7), (3, 200)])
def test_inputs_that_are_not_finite_are_told(value, at, inputs, device):
    hessian = hessian_of(inputs)
    hessian[at] = hessian[at[::-1]] = value
    with pytest.raises(InputError, match=r"inputs (are not finite|do not determine)"):
        gptq.invert(hessian, Settings(), blocks=Blocks(32), device=device)


# What is stored


def stored(values: Quantized, encoding: Encoding, folder: Path) -> Quantized:
    """The content of the stored files."""
    from gemmaq.checkpoint import plain

    shape = values.codes.shape
    empty = folder / "source"
    empty.write_bytes(b"")
    source = plain("some.weight", shape, ENCODINGS["bf16"], span=FileSpan.of(empty), offset=0)
    store, problem = Store(folder), Problem(source, encoding)
    store.append(problem, packed(problem, values))
    tensor = store.tensor(problem)
    with Reader() as reader:
        found = values_of(tensor, read_rows(tensor, 0, shape[0], reader, bytearray()))
    assert isinstance(found, Quantized)
    return found


@pytest.mark.parametrize("size", [1, 1e-6, 3e-40], ids=["usual", "subnormal scales", "nothing at all"])
@pytest.mark.parametrize("portable", [False, True], ids=["own", "portable"])
@pytest.mark.parametrize("name", NAMES)
def test_packing_changes_nothing(name, portable, size, weights, inputs, device, tmp_path):
    encoding, small = ENCODINGS[name], weights * np.float32(size)
    values = solved(small, inputs, encoding, device, portable)
    same(stored(values, encoding, tmp_path), values)
    assert values.codes.max() < 1 << encoding.bits
    assert (values.supers is not None) == (encoding.kind is Kind.SUPER)
    for numbers in (values.scales, values.minima, values.supers, values.super_minima):
        if numbers is not None and ((portable and encoding.kind is not Kind.SUPER) or encoding.scales == "bf16"):
            np.testing.assert_array_equal(wide(bf16(numbers)), numbers)
        if numbers is not None and encoding.scales != "bf16":
            np.testing.assert_array_equal(numbers.astype(np.float16).astype(np.float32), numbers)


@pytest.mark.parametrize("name", [n for n in NAMES if ENCODINGS[n].scales != "bf16"])
def test_portable_scales_cost_little(name, weights, inputs, device):
    encoding = ENCODINGS[name]
    own, portable = (
        output_error(weights, solved(weights, inputs, encoding, device, ported), encoding, inputs)
        for ported in (False, True)
    )
    assert portable < (1.1 if encoding.bits < 8 else 1.5) * own


@pytest.mark.parametrize("name", [n for n in NAMES if ENCODINGS[n].scales != "bf16"])
def test_scales_too_large_to_be_stored_are_told(name, weights, inputs, device, tmp_path):
    encoding = ENCODINGS[name]
    values = solved(weights * np.float32(1e12), inputs, encoding, device)
    with pytest.raises(InputError, match=rf"some\.weight has weights too large for {encoding.label}"):
        stored(values, encoding, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


# Always the same


@pytest.mark.parametrize("name", NAMES)
def test_any_split_in_rows_gives_the_same(name, weights, inputs, device):
    encoding = ENCODINGS[name]
    known = gptq.invert(hessian_of(inputs), Settings(), blocks=Blocks.of(encoding), device=device)
    whole = gptq.quantize(weights, known, encoding, portable=False, device=device)
    np.testing.assert_array_equal(
        whole.codes, gptq.quantize(weights, known, encoding, portable=False, device=device).codes
    )
    for start in (0, 64):  # rows that are worked off together
        same(
            gptq.quantize(weights[start : start + 64], known, encoding, portable=False, device=device),
            rows_of(whole, start, start + 64),
        )
    narrow = np.ascontiguousarray(weights[:, :256])
    known = gptq.invert(hessian_of(inputs[:, :256]), Settings(), blocks=Blocks.of(encoding), device=device)
    whole = gptq.quantize(narrow, known, encoding, portable=False, device=device)
    for start, end in pairwise((0, 1, 8, 9, 77, ROWS)):
        same(
            gptq.quantize(narrow[start:end], known, encoding, portable=False, device=device), rows_of(whole, start, end)
        )


def rows_of(values: Quantized, start: int, end: int) -> Quantized:
    parts = (getattr(values, part) for part in PARTS)
    return Quantized(*(None if part is None else part[start:end] for part in parts))


@pytest.mark.parametrize("name", ["q4_0", "affine3-g128"])
def test_threads_and_alignment_do_not_change_a_bit(name, inputs):
    """More columns than a panel and a block of the factor have."""
    import torch

    random = np.random.default_rng(9)
    columns = 768
    x = random.standard_normal((900, 50)) @ random.standard_normal((50, columns)) + random.standard_normal(
        (900, columns)
    )
    hessian, encoding = hessian_of(x), ENCODINGS[name]
    weights = (random.standard_normal((200, columns)) * 0.02).astype(np.float32)
    with threads(1) as one:
        known = gptq.invert(hessian.clone(), Settings(), blocks=Blocks.of(encoding), device=one)
        wanted = gptq.quantize(weights, known, encoding, portable=False, device=one)
    for count in (2, 3):
        for shift in (0, 1, 5):
            moved = np.empty(weights.size + shift, np.float32)[shift:].reshape(weights.shape)
            moved[:] = weights
            with threads(count) as several:
                again = gptq.invert(hessian.clone(), Settings(), blocks=Blocks.of(encoding), device=several)
                assert torch.equal(again.Hinv, known.Hinv)
                same(gptq.quantize(moved, again, encoding, portable=False, device=several), wanted)
