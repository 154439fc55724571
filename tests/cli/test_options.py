"""Numbers as people type them."""

from __future__ import annotations

import pytest
import typer

from gemmaq.cli.options import cores, count


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("32k", 32768), ("32K", 32768), ("0016", 16)])
def test_whole_numbers(text: str, number: int) -> None:
    assert count(1)(text) == number


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "k", "32m", "", "1e3"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        count(1)(text)


def test_cores() -> None:
    assert cores() >= 1
