"""What `soak.py` says was not given back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from soak import GROWTH, TURNS, Held, problems, soak


@pytest.mark.slow
def test_files_and_threads_are_given_back(tmp_path: Path) -> None:
    first, _, last = soak(6, tmp_path, TURNS[:2])
    assert (first.files, first.threads) == (last.files, last.threads)


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (Held(300 + GROWTH, 4, 1), []),
        (Held(301 + GROWTH, 4, 1), ["17 MB of memory"]),
        (Held(300, 5, 3), ["1 file descriptors", "2 threads"]),
    ],
)
def test_what_grows_is_told(last: Held, told: list[str]) -> None:
    assert problems(Held(100, 4, 1), Held(300, 9, 9), last) == told
