"""Progress as lines of a pipe and as bars of a terminal."""

from __future__ import annotations

import re

import pytest

from gemmaq.cli import console
from gemmaq.progress import Progress
from terminals import on_a_terminal, plain


def test_phases_are_announced_once(capfd):
    with console.progress(None, quiet=False) as progress:
        for done in range(3):
            progress(Progress("calibrating", done, 2, "layers"))
        progress(Progress("writing", 0, 2))
    assert capfd.readouterr().err == "calibrating\nwriting\n"


def test_a_title_stands_for_its_task(capfd):
    with console.progress("writing out", quiet=False) as progress:
        progress(Progress("writing", 1, 2, "bytes"))
    assert capfd.readouterr().err == "writing out\n"


def test_finished_items_get_a_line_with_their_size(capfd):
    with console.progress("two files", quiet=False, total=3000) as progress:
        progress(Progress("fetching", 500, 1000, "bytes", item="a"))
        progress(Progress("fetching", 2000, 2000, "bytes", item="b"))
        progress(Progress("fetching", 1000, 1000, "bytes", item="a"))
    assert capfd.readouterr().err == "two files\n  b  2.00 kB\n  a  1.00 kB\n"


def test_notes_are_shown_at_first_and_at_the_end(capfd):
    with console.progress(None, quiet=False) as progress:
        for done in (1, 2, 3):
            progress(Progress("training", done, 3, note=f"loss {1 / done:.2f}"))
    assert capfd.readouterr().err == "training: 1 of 3 steps  loss 1.00\ntraining: 3 of 3 steps  loss 0.33\n"


def test_quiet_shows_nothing(capfd):
    with console.progress("two files", quiet=True) as progress:
        progress(Progress("fetching", 5, 5, "bytes", item="a"))
    assert capfd.readouterr() == ("", "")


_BARS = """
from gemmaq.cli import console
from gemmaq.progress import Progress

with console.progress("two files", quiet=False, total=4_000_000) as progress:
    progress(Progress("fetching", 1_000_000, 3_000_000, "bytes", item="a.gguf"))
with console.progress(None, quiet=False) as progress:
    progress(Progress("calibrating", 0, None, "layers"))
    progress(Progress("calibrating", 1, 26, "layers"))
    progress(Progress("training", 4, 9, note="loss 0.25"))
"""


def test_barson_a_terminal():
    """A bar for the whole and for the file, amounts in their units, and a note in place of the time left."""
    text = on_a_terminal(_BARS)
    for words in ("two files", "a.gguf", "1.00 MB of 4.00 MB", "1.00 MB of 3.00 MB", "1 of 26 layers"):
        assert words in text
    assert "4 of 9 steps  loss 0.25" in text


def test_a_dumb_terminal_gets_lines_for_bars():
    assert on_a_terminal(_BARS, TERM="dumb").splitlines() == [
        "two files",
        "calibrating",
        "training: 4 of 9 steps  loss 0.25",
    ]


def test_markup_of_rich_is_text():
    assert "[/x] {y}" in on_a_terminal(_BARS.replace("training", "[/x] {y}"))


_FRAMES = """
import time
from gemmaq.cli import bars, console
from gemmaq.progress import Progress

with console.progress({title!r}, quiet=False, total=4_000_000_000) as progress:
    for done in range(1, 5):
        time.sleep(0.15)
        progress(Progress("comparing gemma-3-4b-it-qat with gemma-3-4b-it", done * 10**9, 4 * 10**9, "bytes"))
"""


@pytest.mark.parametrize("columns", [50, 60, 80, 120])
@pytest.mark.parametrize("title", [None, "google/gemma-3-4b-it at 0123456789ab: 12 files, 3.20 GB to download"])
def test_every_bar_is_one_line_with_amount_and_time_left(columns, title):
    shown = on_a_terminal(_FRAMES.format(title=title), columns)
    lines = [line for line in map(plain, re.split(r"\n|\x1b\[2K", shown)) if "GB of" in line]
    assert lines and all(len(line) <= columns for line in lines), lines
    assert any(" left" in line for line in lines)
    assert columns < 80 or any("/s" in line for line in lines)
    assert "…" not in shown


def test_before_the_first_report_something_moves():
    code = "import time\nfrom gemmaq.cli import console\nwith console.progress(None, False):\n    time.sleep(1.2)"
    shown = plain(on_a_terminal(code))
    assert "getting ready" in shown and "0:01" in shown


def test_a_bar_that_does_not_move_shows_that_time_goes_on():
    code = _FRAMES.format(title=None).replace("range(1, 5)", "(0,)") + "    time.sleep(1.2)"
    assert "0:01" in plain(on_a_terminal(code))
