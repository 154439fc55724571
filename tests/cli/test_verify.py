"""`gemmaq verify`: a good artifact, a damaged one, and how each is reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from inprocess import VERIFICATION, run


def test_a_good_artifact(small: Path, small_gguf: Path) -> None:
    done = run("verify", small_gguf, "--json")
    said = json.loads(done.stdout)
    assert said["schema"] == "gemmaq.verify/1" and len(said["artifacts"]) == 1
    assert run("verify", small_gguf, "-q").stdout == ""
    assert small_gguf.name in run("verify", small_gguf).stdout
    against = json.loads(run("verify", small_gguf, "--against", small, "--json").stdout)
    assert against["schema"] == "gemmaq.verify/1"


def test_a_damaged_artifact_is_a_result(small_gguf: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_gguf, tmp_path / "out"))
    weights = next(folder.glob("*.gguf"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = run("verify", folder, "--json", code=VERIFICATION)
    assert weights.name in done.stdout
    assert weights.name in run("verify", folder, code=VERIFICATION).stdout


def test_what_is_no_artifact(tmp_path: Path) -> None:
    run("verify", tmp_path / "absent", code=5)
