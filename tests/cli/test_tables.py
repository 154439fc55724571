"""Tables that can be read on a terminal of any width."""

from __future__ import annotations

import pytest

from gemmaq.cli import tables
from terminals import on_a_terminal, plain

_TABLE = """
from gemmaq.cli import console
console.table(
    "Memory of models",
    ("model", "type", "weights", "KV\\nglobal", "compute", "total"),
    [("gemma-3-27b", "bf16", "51,000.0", "1,234.5", "88.5", "58.11"), ("1b", "q4_0", "680.1", "3.2", "8.5", "1.07")],
    left=2,
    spare={spare!r},
)
"""


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 120])
@pytest.mark.parametrize("spare", [(), ("compute", "KV\nglobal")])
def test_no_cell_is_cut_and_no_line_is_too_long(columns: int, spare: tuple[str, ...]) -> None:
    shown = plain(on_a_terminal(_TABLE.format(spare=spare), columns))
    assert "…" not in shown
    assert all(len(line) <= columns for line in shown.split("\n"))
    for cell in ("gemma-3-27b", "bf16", "51,000.0", "58.11", "1b", "q4_0", "1.07"):
        assert cell in shown


def test_columns_that_can_be_spared_go_first_and_are_named() -> None:
    shown = plain(on_a_terminal(_TABLE.format(spare=("compute", "KV\nglobal")), 50))
    assert "88.5" not in shown and "weights" in shown
    assert "Left out, as the terminal is narrow: compute. --json has all." in " ".join(shown.split())


def test_a_row_that_has_no_room_is_a_list() -> None:
    shown = plain(on_a_terminal(_TABLE.format(spare=()), 30)).split("\n")
    assert "gemma-3-27b, bf16" in shown and "  KV global  1,234.5" in shown and "1b, q4_0" in shown


def test_a_pipe_gets_all_columns(capsys: pytest.CaptureFixture[str]) -> None:
    tables.table("T", ("a" * 150, "b" * 150), [("1", "2")], spare=("b" * 150,))
    shown = capsys.readouterr().out
    assert "a" * 150 in shown and "b" * 150 in shown


_FIELDS = """
from gemmaq.cli import console
console.fields({"cpu": "a processor with a long name and many features " * 3, "memory": "8 GB"})
"""


@pytest.mark.parametrize("columns", [30, 60, 120])
def test_fields_are_broken_between_words(columns: int) -> None:
    lines = plain(on_a_terminal(_FIELDS, columns)).split("\n")
    assert all(len(line) <= columns for line in lines)
    assert " ".join(" ".join(lines).split()).startswith("cpu a processor with a long name and many features a")
    if columns > 40:
        assert all(line.startswith("        ") for line in lines[1:2])
