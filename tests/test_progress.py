"""Reports of work under way; how they are shown is tested in cli/test_console.py."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from gemmaq.progress import Progress, ProgressCallback, ignore


def test_a_report_can_be_kept_and_compared() -> None:
    reports: list[Progress] = []
    callback: ProgressCallback = reports.append
    callback(Progress("calibrating", 3, 26, "layers"))
    assert reports == [Progress("calibrating", 3, 26, "layers")]
    with pytest.raises(FrozenInstanceError):
        reports[0].done = 4  # type: ignore[misc]


def test_nobody_has_to_watch() -> None:
    callback: ProgressCallback = ignore
    callback(Progress("writing", 1))
