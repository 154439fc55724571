"""Merged rows: the same whatever rows are read at a time, and what the formulas say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmaq.checkpoint import Tensor, plain, spans_of
from gemmaq.checkpoint.lora.merged import LowRank, LowRankStack, LowRankTable, Merged, Replaced, Step
from gemmaq.encodings import ENCODINGS
from gemmaq.files.span import FileSpan, Reader

F32 = ENCODINGS["f32"]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tensor, np.ndarray]]:
    """Arrays in files, by name."""
    folder = tmp_path_factory.mktemp("arrays")
    shapes = {
        "w": (24, 20), "a": (5, 20), "b": (24, 5), "norms": (24,), "ta": (5, 24), "tb": (20, 5), "columns": (20,),
        "rows": (3, 20), "sa": (12, 20), "sb": (6, 12),
    }  # fmt: skip
    found = {}
    for name, shape in shapes.items():
        array = RNG.standard_normal(shape).astype(np.float32)
        (folder / name).write_bytes(array.tobytes())
        found[name] = (plain(name, shape, F32, span=FileSpan.of(folder / name), offset=0), array)
    return found


def all_steps(stored: dict[str, tuple[Tensor, np.ndarray]]) -> list[tuple[Step, np.ndarray]]:
    """Each kind of step, and the table that it makes of w, f64."""
    t = {name: tensor for name, (tensor, _) in stored.items()}
    x = {name: array.astype(np.float64) for name, (_, array) in stored.items()}
    added, table = x["w"] + 1.5 * x["b"] @ x["a"], x["w"] + 1.5 * (x["tb"] @ x["ta"]).T
    replaced = x["w"].copy()
    replaced[[2, 23, 7]] = x["rows"]
    stack = x["w"].reshape(4, 6, 20) + 1.5 * np.einsum(
        "ore,eri->eoi", x["sb"].reshape(6, 3, 4), x["sa"].reshape(4, 3, 20)
    )
    return [
        (LowRank(t["a"], t["b"], 1.5), added),
        (LowRank(t["a"], t["b"], 1.5, t["norms"]), added * (x["norms"] / np.linalg.norm(added, axis=1))[:, None]),
        (LowRankTable(t["ta"], t["tb"], 1.5), table),
        (LowRankTable(t["ta"], t["tb"], 1.5, t["columns"]), table * x["columns"] / np.linalg.norm(table, axis=0)),
        (Replaced((2, 23, 7), t["rows"]), replaced),
        (LowRankStack(t["sa"], t["sb"], 1.5, 4), stack.reshape(24, 20)),
    ]


def test_rows_are_what_the_formulas_say(stored: dict[str, tuple[Tensor, np.ndarray]]) -> None:
    with Reader() as reader:
        for step, expected in all_steps(stored):
            rows = Merged(stored["w"][0], (step,)).rows(0, 24, reader)
            np.testing.assert_allclose(rows, expected, rtol=2e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(kind=st.integers(0, 5), first=st.integers(0, 23), count=st.integers(1, 24))
def test_rows_do_not_depend_on_what_is_read_with_them(
    stored: dict[str, tuple[Tensor, np.ndarray]], kind: int, first: int, count: int
) -> None:
    step, _ = all_steps(stored)[kind]
    merged = Merged(stored["w"][0], (step,))
    with Reader() as reader:
        whole = merged.rows(0, 24, reader)
        some = merged.rows(first, count, reader)
    held = min(count, 24 - first)
    assert np.array_equal(some[:held], whole[first : first + held])
    assert not some[held:].any()  # a container may want more rows than there are


def test_steps_follow_each_other(stored: dict[str, tuple[Tensor, np.ndarray]]) -> None:
    add, replace = (all_steps(stored)[at][0] for at in (0, 4))
    merged = Merged(stored["w"][0], (add, replace))
    with Reader() as reader:
        rows = merged.rows(0, 24, reader)
    assert np.array_equal(rows[23], stored["rows"][1][1])
    assert not np.array_equal(rows[22], stored["w"][1][22])
    tensor = merged.tensor()
    assert {Path(span.name) for span in spans_of([tensor])} == {Path(name) for name in ("w", "a", "b", "rows")}
