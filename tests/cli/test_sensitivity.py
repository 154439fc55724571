"""`gemmaq sensitivity`: a dry run, a real one, an interrupted one, and what stands in the way."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from gemmaq.calibration import sensitivity_errors
from gemmaq.cli.app import main
from gemmaq.encodings import ENCODINGS
from gemmaq.planning.sensitivities import read
from inprocess import refused, run

SHORT = ("--tokens", 32, "--calibration-tokens", 96, "--context", 32, "--threads", 1)


@pytest.fixture(autouse=True)
def few_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops of few types are compiled."""
    pytest.importorskip("torch")
    few = {name: ENCODINGS[name] for name in ("bf16", "q4_0", "q8_0")}
    monkeypatch.setattr(sensitivity_errors, "ENCODINGS", few)
    monkeypatch.setattr(sensitivity_errors, "PROBES", ("q4_0", "q8_0"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "letters.txt"
    path.write_text("".join(chr(97 + n % 26) for n in range(2000)))
    return path


def test_a_dry_run_says_what_would_be_measured(small: Path, text: Path, out: Path) -> None:
    words = ("sensitivity", small, "--text", text, "-o", out, *SHORT, "--dry-run")
    said = json.loads(run(*words, "--json").stdout)
    assert said["schema"] == "gemmaq.sensitivity/1"
    assert (said["groups"], said["tokens"], said["calibrating"], said["coarse"]) == (15, 28, 96, False)
    assert said["seconds"] > 0 < said["memory"]
    shown = run(*words, "--coarse")
    assert "15 (kinds of matrices in bands of layers)" in shown.stdout
    assert "nothing was measured" in shown.stderr
    kinds = ("sensitivity", small, "--calibration-kind", "code,tools", "-o", out, *SHORT, "--dry-run", "--json")
    assert {name.partition("-")[0] for name in json.loads(run(*kinds).stdout)["texts"]} == {"code", "tools"}
    refused(2, ("poetry", "known"), *(word if word != "code,tools" else "poetry" for word in kinds), under=out.parent)
    assert not list(out.parent.iterdir())


def test_a_real_run_writes_the_file_and_shows_what_is_sensitive(small: Path, text: Path, out: Path) -> None:
    words = ("sensitivity", small, "--text", text, "-o", out, *SHORT)
    shown = run(*words).stdout
    found = read(out)
    assert len(found.groups) == 15
    assert "down" in shown and "most in layer" in shown
    before = out.read_bytes()
    said = json.loads(run(*words, "--force", "--json").stdout)
    assert said["groups"][0]["tensors"] == list(found.groups[0].names)
    assert said["groups"][0]["kl"]["nearest"] == pytest.approx(found.groups[0].losses["nearest"]["q4_0"], rel=1e-5)
    assert out.read_bytes() == before
    assert run(*words, "--force", "-q").stdout == f"{out}\n"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_an_interrupted_run_goes_on(
    small: Path, text: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gemmaq.calibration.sensitivity import _Run

    words: tuple[Any, ...] = ("sensitivity", small, "--text", text, "-o", out, *SHORT)
    run(*words, "-q")
    before = out.read_bytes()
    out.unlink()
    layer = _Run.layer

    def interrupted(self: _Run, index: int) -> None:
        if index == 1:
            raise KeyboardInterrupt
        layer(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(_Run, "layer", interrupted)
        argv, said = ["gemmaq", *map(str, words)], io.StringIO()
        with patch.object(sys, "argv", argv), redirect_stderr(said), pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 130
    assert "--resume goes on" in said.getvalue()
    assert not out.exists()
    refused(7, ("not finished", "--resume"), *words, under=tmp_path)
    refused(3, ("other flags",), *words, "--resume", "--coarse", under=tmp_path)
    run(*words, "--resume", "-q")
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_flags_that_cannot_be(small: Path, text: Path, out: Path, tmp_path: Path) -> None:
    words = ("sensitivity", small, "--text", text)
    refused(2, ("no file to write", "-o"), *words, under=tmp_path)
    refused(2, ("--resume", "--force"), *words, "-o", out, "--resume", "--force", under=tmp_path)
    out.touch()
    refused(7, ("exists", "--force"), *words, "-o", out, under=tmp_path)
