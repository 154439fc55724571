"""Lines on a terminal: broken between words, coloured where it can, and a word about long waits."""

from __future__ import annotations

import pytest

from gemmaq.cli import terminal
from terminals import on_a_terminal, plain

_WORDS = "126 tensors are quantized a second time (from Q4_K, Q5_0): a BF16 checkpoint gives a better result"
_SAYS = f"""
from gemmaq.cli import console
from gemmaq.errors import InputError
console.warn({_WORDS!r})
console.error(InputError({_WORDS!r}, {_WORDS!r}))
console.say({_WORDS!r})
"""


@pytest.mark.parametrize("columns", [40, 60, 80, 300])
def test_lines_are_broken_between_words(columns: int) -> None:
    shown = plain(on_a_terminal(_SAYS, columns))
    assert all(len(line) <= columns for line in shown.split("\n"))
    text = " ".join(shown.split())
    assert text.count(_WORDS) == 4, text


@pytest.mark.parametrize("line", ["gemmaq convert " + "a b " * 30, "x/" * 60])
def test_what_is_to_be_copied_stays_whole(line: str) -> None:
    code = "from gemmaq.cli import console\nfrom gemmaq.errors import InputError\n"
    code += f"console.error(InputError('x', {line!r}))"
    assert line in plain(on_a_terminal(code, 60))


_WAITS = """
import time
from gemmaq.cli import console
with console.waiting.shown("getting ready"):
    console.waiting.doing("loading torch")
    time.sleep({seconds})
    {between}
    print("done")
"""


def test_a_long_wait_is_told_and_goes_without_a_trace() -> None:
    shown = on_a_terminal(_WAITS.format(seconds=2.6, between="console.out('result')"))
    assert "\r\x1b[Kloading torch  0:02" in shown
    assert shown.endswith("\r\x1b[Kresult\r\ndone\r\n")


def test_what_is_done_in_the_midst_of_a_wait_is_told_until_it_ends() -> None:
    between = "console.waiting.compiling(True); time.sleep(0.6); console.waiting.compiling(False); time.sleep(0.6)"
    shown = on_a_terminal(_WAITS.format(seconds=2.3, between=between))
    told = [line.split("  ")[0] for line in shown.split("\r\x1b[K") if "  0:" in line]
    assert list(dict.fromkeys(told)) == ["loading torch", "compiling loops for this processor"]
    assert told[-1] == "loading torch"


@pytest.mark.parametrize(
    ("seconds", "between", "environment"),
    [(0.5, "pass", {}), (2.3, "pass", {"TERM": "dumb"})],
)
def test_a_short_wait_is_not_told_and_no_wait_on_a_dumb_terminal(
    seconds: float, between: str, environment: dict[str, str]
) -> None:
    assert on_a_terminal(_WAITS.format(seconds=seconds, between=between), **environment) == "done\r\n"


def test_nothing_is_told_to_a_script() -> None:
    code = _WAITS.format(seconds=0, between="console.Output('x', True, False); time.sleep(2.3)")
    assert on_a_terminal(code) == "done\r\n"


@pytest.mark.parametrize(
    ("bytes", "text"), [(999, "999 B"), (1500, "1.50 kB"), (2_345_678, "2.35 MB"), (12e9, "12.0 GB")]
)
def test_sizes(bytes: float, text: str) -> None:
    assert terminal.size(bytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(9, "0:09"), (750, "12:30"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text
