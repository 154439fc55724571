"""Figures about an importance matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gemmaq.calibration.floor import entry
from gemmaq.calibration.imatrix import Entry, Imatrix
from gemmaq.calibration.summary import kinds, statistics


def of(sums: list[float], *counts: float) -> Entry:
    return Entry(np.array(sums, np.float32), np.array(counts, np.float32))


def test_figures_are_those_of_llama_imatrix() -> None:
    (one,) = statistics(Imatrix({"blk.3.ffn_down.weight": of([8, 0, 4, 4], 2)}))
    assert (one.layer, one.kind, one.columns, one.tokens) == (3, "ffn_down", 4, 2)
    assert (one.total, one.least, one.most, one.mean) == (8, 0, 4, 2)
    assert one.deviation == pytest.approx(math.sqrt(2))
    assert (one.active, one.zeros, one.outliers) == (0.75, 1, 0.25)
    assert one.entropy == pytest.approx(1.5 / 2)
    assert (one.top, one.similarity) == (0.5, None)
    assert (one.experts, one.unseen) == (0, 0)


def test_the_largest_hundredth_of_the_columns_has_a_share() -> None:
    (one,) = statistics(Imatrix({"output.weight": of([1.0] * 198 + [51, 51], 1)}))
    assert (one.layer, one.kind) == (None, "output")
    assert one.top == pytest.approx(102 / 300)


def test_a_layer_is_compared_with_the_one_before() -> None:
    entries = {
        "blk.10.attn_q.weight": of([0, 5], 1),
        "blk.9.attn_q.weight": of([3, 4], 1),
        "blk.8.attn_q.weight": of([6, 8], 1),
        "blk.10.attn_k.weight": of([1, 1, 1], 1),
        "blk.9.attn_k.weight": of([1, 1], 1),
    }
    found = statistics(Imatrix(entries))
    assert [one.layer for one in found] == [8, 9, 9, 10, 10]
    near = {one.name: one.similarity for one in found}
    assert near["blk.9.attn_q.weight"] == pytest.approx(1) and near["blk.10.attn_q.weight"] == pytest.approx(0.8)
    assert near["blk.8.attn_q.weight"] is near["blk.10.attn_k.weight"] is None
    keys, queries = kinds(found)
    assert (keys.kind, keys.tensors, keys.similarity) == ("attn_k", 2, None)
    assert (queries.tensors, queries.similarity) == (3, pytest.approx(0.9))
    assert queries.total == pytest.approx((5 + 7 + 14) / 3)


def test_experts_that_saw_nothing_are_counted_but_not_measured() -> None:
    raw = Imatrix({"blk.0.ffn_up_exps.weight": of([2, 4, 0, 0, 6, 8], 2, 0, 2)})
    (one,) = statistics(raw)
    assert (one.experts, one.unseen, one.columns, one.total, one.tokens) == (3, 1, 4, 10, 4)
    blended = entry(np.array([[2.0, 4], [0, 0], [6, 8]]), np.array([2, 0, 2]))
    (one,) = statistics(Imatrix({"blk.0.ffn_up_exps.weight": blended}))
    assert (one.experts, one.unseen, one.columns, one.tokens) == (3, 1, 6, 4)
    (kind,) = kinds([one])
    assert (kind.experts, kind.unseen) == (3, 1)


def test_a_matrix_without_inputs_has_figures() -> None:
    for nothing in (of([0, 0], 0), of([0, 0], 5)):
        (one,) = statistics(Imatrix({"blk.0.attn_q.weight": nothing}))
        assert (one.total, one.entropy, one.top, one.outliers) == (0, 0, 0, 0)
