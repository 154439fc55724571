"""Options of calibration: which go together, and what they read."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gemmaq.cli.calibration import from_record, read
from gemmaq.errors import InputError, UsageError
from gemmaq.planning.recipe import Rule, of
from gemmaq.planning.request import Calibration

NOTHING: dict[str, Any] = {"tokens": None, "context": None, "damping": None, "order": None}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "letters.txt"
    path.write_text("some words\n")
    return path


def test_no_basis_without_a_calibrated_method() -> None:
    assert read(of("q4_0"), None, None, NOTHING) is None


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("nearest", {"context": 64}, "--calibration-context is for methods importance and gptq"),
        ("importance", {"damping": 0.1}, "--damping is for method gptq only"),
        ("importance", {"order": "columns"}, "--order is for method gptq only"),
    ],
)
def test_options_without_a_method_are_refused(method: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(of("q4_0", embedding=None, method=method), None, None, NOTHING | settings)


def test_a_matrix_asks_for_the_method_that_takes_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--imatrix is for method importance") as refused:
        read(of("q4_0"), None, tmp_path / "some.gguf", NOTHING)
    assert refused.value.hint == "add --method importance"


def test_the_environment_may_bound_tokens_of_any_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMAQ_CALIBRATION_TOKENS", "64")
    assert read(of("q4_0"), None, None, NOTHING | {"tokens": 64}) is None


def test_text_is_read_for_rules_too(text: Path) -> None:
    pytest.importorskip("torch")
    recipe = of("q4_0", embedding=None, method="nearest", rules=(Rule("*.down_proj.weight", None, "gptq"),))
    basis = read(recipe, [text], None, NOTHING | {"context": 32, "damping": 0.02})
    assert basis is not None and basis.text is not None and basis.imatrix is None
    assert basis.calibration.texts == ("letters.txt",)
    assert (basis.calibration.context, basis.calibration.damping) == (32, 0.02)
    for settings, words in (({"damping": 0.0}, "not between 0 and 1"), ({"order": "random"}, "unknown order")):
        with pytest.raises(UsageError, match=words):
            read(recipe, [text], None, NOTHING | settings)


def test_an_importance_matrix_is_no_basis_for_gptq(text: Path) -> None:
    with pytest.raises(UsageError, match="--imatrix is for method importance only"):
        read(of("q4_0", embedding=None, method="gptq"), None, text, NOTHING)
    with pytest.raises(UsageError, match="exclude each other"):
        read(of("q4_0", embedding=None, method="importance"), [text], text, NOTHING)


def test_another_text_than_on_record_is_refused(text: Path) -> None:
    pytest.importorskip("torch")
    record = Calibration(("letters.txt",), sha256(b"other").hexdigest(), context=32)
    with pytest.raises(InputError, match=r"was not calibrated on .*letters\.txt"):
        from_record(record, [text], None)
