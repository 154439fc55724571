"""Warnings of libraries about their future are not for users."""

from __future__ import annotations

import sys
import warnings

import pytest

from gemmaq.cli import library_warnings


def test_warnings_about_the_future_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        monkeypatch.setattr(sys, "warnoptions", [])
        warnings.showwarning = lambda *what, **more: print(what[0], file=sys.stderr)
        library_warnings.leave_out()
        library_warnings.leave_out()
        warnings.simplefilter("always")
        for kind in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
            warnings.warn("will change", kind, stacklevel=1)
        assert capsys.readouterr().err == ""
        warnings.warn("odd numbers", RuntimeWarning, stacklevel=1)
        assert capsys.readouterr().err == "odd numbers\n"


def test_who_asks_for_warnings_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        monkeypatch.setattr(sys, "warnoptions", ["always"])
        show = warnings.showwarning
        library_warnings.leave_out()
        assert warnings.showwarning is show
