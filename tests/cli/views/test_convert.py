"""Results of `gemmaq convert`: text for people, JSON for scripts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from gemmaq.cli.views.convert import grid
from gemmaq.methods.lattice import GridFit, together
from inprocess import run


def test_grids_are_rounded_for_json() -> None:
    whole = GridFit("absmax/7", 1.0, 0.00000123, 9)
    (entry,) = grid({"a": GridFit("absmax/7", 0.123456, 0.00000123, 9, 0.0801234)})
    assert entry == {
        "tensor": "a",
        "rule": "absmax/7",
        "on_grid": False,
        "share": 0.1235,
        "residual": 0.000001,
        "verdict": "partial",
        "distance": 0.080123,
    }
    (stack,) = grid({"b": together([whole, whole, GridFit(None, 0.0, 0.0, 9, 0.08)])})
    assert stack["experts"] == {"whole": 2, "partial": 0, "none": 1} and stack["verdict"] == "partial"


def test_files_are_on_stdout_and_figures_on_stderr(small: Path, out: Path) -> None:
    done = run("convert", small, "--to", "gguf", "--to", "mlx", "-o", out, "--dry-run")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(str(out / "gguf")) and lines[0].endswith(" bytes)")
    assert any(line.startswith(str(out / "mlx/model.safetensors")) for line in lines)
    assert (
        "gguf: " in done.stderr and "bits per weight" in done.stderr and "nothing was written (dry run)" in done.stderr
    )
    assert not out.exists()


def test_json_of_a_real_run_has_what_that_of_a_dry_run_lacks(small: Path, out: Path) -> None:
    dry, real = (
        json.loads(run("convert", small, "--method", "nearest", "-o", out, "--json", *options).stdout)
        for options in (("--dry-run",), ())
    )
    assert real.keys() - dry.keys() == {"seconds", "peak_rss_bytes"} and dry.keys() <= real.keys()
    (planned,), (written,) = dry["artifacts"], real["artifacts"]
    assert written.keys() - planned.keys() == {"outcomes", "report", "rounded"}
    assert [file["bytes"] for file in planned["files"]] == [file["bytes"] for file in written["files"]]
    assert all(len(file["sha256"]) == 64 for file in written["files"])
    assert sum(written["outcomes"].values()) == sum(written["tensors"].values()) == len(written["report"])


def test_the_peak_is_that_of_the_program_alone(small: Path, out: Path) -> None:
    """On Linux `ru_maxrss` of a program starts at what the process held that became it."""
    command = ["-m", "gemmaq", "convert", str(small), "--method", "nearest", "-o", str(out), "--json"]
    script = f"import os, sys; held = b'1' * (1 << 30); os.execv(sys.executable, [sys.executable, *{command}])"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert 1 << 24 < json.loads(done.stdout)["peak_rss_bytes"] < 1 << 30
