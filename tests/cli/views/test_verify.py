"""Results of `gemmaq verify`: what a person reads, and what a script gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gemmaq.cli.views import verify as views
from gemmaq.convert.compare import Compared
from gemmaq.verify.against import Comparison
from gemmaq.verify.examine import Report


def report(name: str = "", listed: int | None = 3, problems: tuple[str, ...] = ()) -> Report:
    return Report(Path("out") / name, name, None, None, None, listed, {"a.gguf": "0" * 64}, problems)


def compared(name: str, square_error: float, equal: bool | None = True) -> Compared:
    differing = None if equal is None else 0 if equal else 7
    return Compared(name, "down", 0, "q4_0", 100, square_error, 4.0, differing, equal)


def test_problems_of_a_comparison_name_the_folder_of_several() -> None:
    comparison = Comparison((), ("tensor x differs",))
    assert views.problems(report(problems=("a is missing",)), comparison) == ["a is missing", "tensor x differs"]
    assert views.problems(report("mlx"), comparison) == ["mlx: tensor x differs"]
    assert views.problems(report("mlx"), None) == []


def test_json_has_errors_by_kind_and_no_infinity() -> None:
    comparison = Comparison((compared("a", 1.0), compared("b", float("inf"), False)), (), ("note",))
    entry: dict[str, Any] = views.entry(report(), comparison)
    (kind,) = entry["kinds"]
    assert kind == {"kind": "down", "tensors": 2, "error": None, "worst": None, "equal": 1}
    assert entry["tensors"][0] == {
        "name": "a", "kind": "down", "type": "q4_0", "error": 0.5, "equal": True, "differing": 0
    }  # fmt: skip
    assert entry["notes"] == ["note"] and "kinds" not in views.entry(report(), None)


def test_a_summary_says_what_was_checked(capsys: pytest.CaptureFixture[str]) -> None:
    views.show(report(), None)
    assert "3 files are what SHA256SUMS says, headers and tokenizer are OK; it has no gemmaq.json" in (
        capsys.readouterr().out
    )
    views.show(report(listed=None), None)
    assert "nothing else can be checked" in capsys.readouterr().out


def test_many_problems_are_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    views.show(report(problems=tuple(f"problem {n}" for n in range(25))), None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21 and lines[-1] == "and 5 more (--json lists all)"


def test_the_worst_tensors_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    tensors = tuple(compared(f"t{n}", n / 10) for n in range(8))
    views.show(report(), Comparison(tensors, ()))
    shown = capsys.readouterr().out
    assert "8 of 8" in shown and "t7" in shown and "t2" not in shown
