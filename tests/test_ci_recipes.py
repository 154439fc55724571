"""recipes/ci.sh and the workflow that runs it: what passes the gate is published, all else is not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fake_hub import FakeHub
from small import write_model

RECIPES = Path(__file__).parents[1] / "recipes"
TARGET = "acme/my-finetune-GGUF"
PASSES = {"QUANT": "q8_0", "MAX_KL": "0.5", "MIN_TOP1": "50%", "TOKENS": "256", "OMP_NUM_THREADS": "1"}
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[FakeHub, Run]]:
    """A Hub, and a function that runs a command of the job in a folder with the model."""
    source = write_model(tmp_path / "my finetune")
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 60)
    with FakeHub(tmp_path / "hub") as hub:
        here = {
            **hub.env(tmp_path / "home", "hf_write"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TEXT": str(text), "SOURCE": str(source), "TARGET": TARGET, **PASSES,
        }  # fmt: skip

        def run(*command: object, **changes: str) -> subprocess.CompletedProcess[str]:
            words = [str(word) for word in command]
            env = {**here, **changes}
            return subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)

        yield hub, run


def test_a_model_that_passes_is_published_with_its_record(job: tuple[FakeHub, Run], tmp_path: Path) -> None:
    hub, run = job
    script = ("sh", RECIPES / "ci.sh", tmp_path / "my finetune", TARGET)
    dry = run(*script, DRY_RUN="1")
    assert dry.returncode == 0, dry.stderr
    assert TARGET not in hub.repos and (tmp_path / "artifact.html").exists()
    done = run(*script)
    assert done.returncode == 0, done.stderr
    files = hub.commit(TARGET).files
    assert {"README.md", "SHA256SUMS", "gemmaq.json"} <= set(files)
    (model,) = json.loads((tmp_path / "artifact/gemmaq.json").read_text())["models"]
    assert model["quality"]["top1"] >= 0.5


def test_the_gate_stops_a_model_that_lost_too_much(job: tuple[FakeHub, Run], tmp_path: Path) -> None:
    hub, run = job
    done = run("sh", RECIPES / "ci.sh", tmp_path / "my finetune", TARGET, MAX_KL="1e-12")
    assert done.returncode == 8 and "above" in done.stderr, done.stderr
    assert TARGET not in hub.repos


def workflow() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((RECIPES / "github-actions.yml").read_text())
    return document


def test_the_workflow_runs_the_script(job: tuple[FakeHub, Run]) -> None:
    """The step is run as the runner runs it: bash, with the variables of the job."""
    hub, run = job
    (command,) = [step["run"] for step in workflow()["jobs"]["quantize"]["steps"] if "ci.sh" in step.get("run", "")]
    done = run("bash", "-e", "-c", command)
    assert done.returncode == 0, done.stderr
    assert TARGET in hub.repos


def test_the_workflow_names_variables_of_the_script() -> None:
    """With the same defaults, and each from an input or a secret that exists."""
    document = workflow()
    inputs, job = document[True]["workflow_dispatch"]["inputs"], document["jobs"]["quantize"]  # YAML's `on` is True
    script = (RECIPES / "ci.sh").read_text()
    for name, value in job["env"].items():
        source = re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", value)
        if source is None:
            assert name in ("GEMMAQ", "HF_TOKEN")
            continue
        default = inputs[source[1]].get("default")
        assert (name in ("SOURCE", "TARGET")) == (default is None)
        assert default is None or f"${{{name}:-{default}}}" in script
