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
    assert "Google" in shown() and "BF16 → 4 bit" in shown()
    assert "Google" not in shown("27b")


def test_one_system_of_units_where_no_published_figure_stands_beside() -> None:
    text = shown("27b", "--quant", "q4_0", "--gpu", "4090")
    assert "GiB" in text and "MiB" not in text and "GB" not in text
    text = shown("--context", "4k")
    assert "GB" in text and "iB" not in text


def test_names_are_short() -> None:
    rows = [line.split()[0] for line in shown("27b", "270m", "--quant", "q4_0").splitlines() if "q4_0" in line]
    assert rows == ["27b", "270m"]


def test_names_are_whole_where_two_families_share_one() -> None:
    rows = [line.split()[0] for line in shown("12b", "gemma-4-12B", "--quant", "q4_0").splitlines() if "q4_0" in line]
    assert rows == ["gemma-3-12b", "gemma-4-12B"]


def test_the_table_of_today_fits_a_small_screen() -> None:
    """80 x 24, what is printed beside the table included."""
    done = run("estimate-vram")
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    assert len(lines) + 1 <= 24
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()) <= 80


def test_main_memory_is_a_column_and_a_sentence_where_the_engine_takes_some() -> None:
    text = shown("E2B", "--quant", "q4_0")
    assert "host" in text and "Host RAM comes on top" in text and "2.13" in text
    assert "ost RAM" not in shown("E2B", "--engine", "mlx")


@pytest.mark.parametrize("longest", [1, 2, 1000, 2048, 2049, 32768, 131072])
def test_contexts_of_a_curve_end_at_the_longest(longest: int) -> None:
    contexts = _contexts(longest)
    assert contexts == sorted(set(contexts)) and contexts[-1] == longest
    assert contexts[0] >= 1 and (longest < 4 or len(contexts) > 1)
