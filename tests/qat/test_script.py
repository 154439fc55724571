"""recipes/qat.sh from a model and two texts to artifacts and a page that compares them; and once more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "recipes/qat.sh"


def test_a_fine_tune_is_trained_packed_and_measured(source, text, tmp_path):
    held = tmp_path / "held.txt"
    held.write_text(text.read_text()[-3000:])
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GEMMAQ_CACHE": str(tmp_path / "cache"),
        "STEPS": "4",
        "OPTIONS": "--context 64 --threads 1",
    }

    def run():
        command = ["sh", SCRIPT, source, text, held]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)

    done = run()
    assert done.returncode == 0, done.stderr
    work = tmp_path / "qat"
    assert {"SHA256SUMS", "gemmaq.json"} <= {path.name for path in (work / "runtimes/mlx").iterdir()}
    assert (work / "trained/qat.json").is_file()
    assert "<svg" in (work / "quality.html").read_text()
    trained = (work / "trained/model.safetensors").stat().st_mtime_ns
    again = run()
    assert again.returncode == 0, again.stderr
    assert (work / "trained/model.safetensors").stat().st_mtime_ns == trained
