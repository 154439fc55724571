"""Display of a training: phases by name, and no figures before they are known."""

from __future__ import annotations

import sys

import pytest

from gemmaq.cli.views.training import training

pytest.importorskip("torch")

from gemmaq.qat.trainer import StepMetrics


def test_lines_name_every_phase_once(capsys: pytest.CaptureFixture[str]) -> None:
    with training(quiet=False) as display:
        for done in range(3):
            display.progress("measuring before training", done, 2)
        display.step(StepMetrics(1, None, 0.5, None, None))
        display.step(StepMetrics(2, 2, 0.25, 1200.0, 0.0))
    assert capsys.readouterr().err.splitlines() == [
        "measuring before training",
        "step 1  loss 0.5000",
        "step 2 of 2  loss 0.2500  1,200 tokens/s  0:00 left",
    ]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with training(quiet=True) as display:
        display.say("text")
        display.progress("phase", 1, 2)
        display.step(StepMetrics(1, 2, 0.5, None, None))
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_the_phase_under_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with training(quiet=False) as display:
        display.warn("[not markup]")
        display.progress("measuring before training", 1, 8)
        display.step(StepMetrics(3, 20, 0.5, 1000.0, 3725.0))
    said = capsys.readouterr().err
    assert "[not markup]" in said
    assert "1:02:05 left" in said
