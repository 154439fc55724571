"""Tables and curves of `gemmaq estimate-vram`: which columns there are, and which contexts are drawn."""

from __future__ import annotations

import pytest

from gemmaq.cli.views.estimate_vram import _contexts
from inprocess import run


def shown(*arguments: object) -> str:
    return run("estimate-vram", *arguments).stdout


def test_several_contexts_are_a_column() -> None:
    text = shown("27b", "--quant", "q4_0", "--context", 4096, "--context", 131072)
    assert "context" in text and "131,072" in text and "tokens" not in text.splitlines()[0]


def test_the_publishers_figures_are_in_the_table_of_all_sizes_only() -> None:
    assert "Google, GB" in shown() and "BF16 → int4" in shown()
    assert "Google" not in shown("27b")


def test_one_system_of_units_where_no_published_figure_stands_beside() -> None:
    text = shown("27b", "--quant", "q4_0", "--gpu", "4090")
    assert "MiB" in text and "GiB" in text and "GB" not in text


def test_names_are_short() -> None:
    rows = [line.split()[0] for line in shown("27b", "270m", "--quant", "q4_0").splitlines() if "q4_0" in line]
    assert rows == ["27b", "270m"]


@pytest.mark.parametrize("longest", [1, 2, 1000, 2048, 2049, 32768, 131072])
def test_contexts_of_a_curve_end_at_the_longest(longest: int) -> None:
    contexts = _contexts(longest)
    assert contexts == sorted(set(contexts)) and contexts[-1] == longest
    assert contexts[0] >= 1 and (longest < 4 or len(contexts) > 1)
