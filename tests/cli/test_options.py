"""Numbers as people type them, and files that could not be written."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from gemmaq.cli.options import check_file, cores, count
from gemmaq.errors import OutputError


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("32k", 32768), ("32K", 32768), ("0016", 16)])
def test_whole_numbers(text: str, number: int) -> None:
    assert count(1)(text) == number


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "k", "32m", "", "1e3"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        count(1)(text)


def test_cores() -> None:
    assert cores() >= 1


def test_a_file_that_could_not_be_written_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    check_file(file, force=False)
    file.touch()
    check_file(file, force=True)
    for path, force, words in (
        (file, False, "exists"),
        (tmp_path, True, "it is a folder"),
        (tmp_path / "absent/report.html", True, "its folder does not exist"),
    ):
        with pytest.raises(OutputError, match=words) as refused:
            check_file(path, force)
        assert refused.value.path == str(path)
