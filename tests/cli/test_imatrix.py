"""`gemmaq imatrix`: a dry run, a real one, and what stands in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemmaq.calibration.imatrix import read
from inprocess import refused, run

SHORT = ("--calibration-tokens", 128, "--calibration-context", 32)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "letters.txt"
    path.write_text("".join(chr(97 + n % 26) for n in range(2000)))
    return path


def test_a_dry_run_counts_and_writes_nothing(small: Path, text: Path, out: Path) -> None:
    pytest.importorskip("torch")
    done = run("imatrix", small, "--text", text, "-o", out, *SHORT, "--dry-run", "--json")
    said = json.loads(done.stdout)
    assert said["schema"] == "gemmaq.imatrix/1"
    assert (said["sequences"], said["tokens"], said["texts"]) == (4, 128, ["letters.txt"])
    assert not out.exists()


def test_a_real_run(small: Path, text: Path, out: Path) -> None:
    pytest.importorskip("torch")
    said = json.loads(run("imatrix", small, "--text", text, "-o", out, *SHORT, "--json").stdout)
    assert said["matrices"] == len(read(out).entries) == 14
    assert said["bytes"] == out.stat().st_size
    assert run("imatrix", small, "--text", text, "-o", out, *SHORT, "-q", "--force").stdout == f"{out}\n"


def test_outputs_that_cannot_be(small: Path, text: Path, out: Path, tmp_path: Path) -> None:
    out.touch()
    refused(7, ("exists", "--force"), "imatrix", small, "--text", text, "-o", out, under=tmp_path)
    for output in (tmp_path, tmp_path / "absent/file"):
        refused(7, ("cannot be written",), "imatrix", small, "--text", text, "-o", output, "--force", under=tmp_path)
