"""recipes/release.sh from a repository to three repositories, and what it does when a step fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gemma4_drafter
import gemma4_towers
from fake_hub import FakeHub

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "recipes/release.sh"
SOURCE = "google/gemma-3-4b-it-qat-q4_0-unquantized"
TARGET = "acme/gemma-3-4b-it-qat"
KINDS = {"GGUF": "gemma-3-4b-it-qat-Q4_0.gguf", "MLX": "model.safetensors", "W4A16": "model.safetensors"}


@pytest.fixture
def release(tiny, tmp_path):
    """Run the script against a Hub that has the checkpoint; gives the Hub and the run."""
    with FakeHub(tmp_path / "hub") as hub:
        hub.add(SOURCE, tiny)

        def run(source=SOURCE, token="hf_write", **env):
            here = {**hub.env(tmp_path / "home", token), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
            return subprocess.run(
                ["sh", SCRIPT, source, TARGET],
                cwd=tmp_path,
                env={**here, **env},
                capture_output=True,
                text=True,
                timeout=300,
            )

        yield hub, run


def test_three_artifacts_go_out_and_a_second_run_sends_nothing(release, tmp_path):
    hub, run = release
    done = run(CONTEXTS="1024 2048")
    assert done.returncode == 0, done.stderr
    for kind, name in KINDS.items():
        files = hub.commit(f"{TARGET}-{kind}").files
        assert {name, "README.md", "SHA256SUMS", "gemmaq.json"} <= set(files)
    before = {kind: hub.commit(f"{TARGET}-{kind}").sha for kind in KINDS}
    again = run(CONTEXTS="1024")
    assert again.returncode == 0, again.stderr
    assert {kind: hub.commit(f"{TARGET}-{kind}").sha for kind in KINDS} == before


def test_dry_run_publishes_nothing(release):
    hub, run = release
    done = run(DRY_RUN="1", CONTEXTS="1024")
    assert done.returncode == 0, done.stderr
    assert set(hub.repos) == {SOURCE}


def test_a_drafter_goes_out_beside_the_gguf_model(release, tmp_path):
    hub, run = release
    source = gemma4_towers.write(tmp_path / "gemma-4-E2B-it", gemma4_towers.KINDS["effective"])
    drafter = gemma4_drafter.write(tmp_path / "my drafter", gemma4_drafter.DRAFTERS["effective"])
    done = run(source, CONTEXTS="1024", DRAFT=str(drafter))
    assert done.returncode == 0, done.stderr
    with_drafter = [kind for kind in KINDS if any("mtp-" in name for name in hub.commit(f"{TARGET}-{kind}").files)]
    assert with_drafter == ["GGUF"]


def test_a_broken_artifact_is_not_published(release, tmp_path):
    hub, run = release
    assert run(DRY_RUN="1", CONTEXTS="1024").returncode == 0
    path = tmp_path / "release" / "gguf" / KINDS["GGUF"]
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    done = run(CONTEXTS="1024")
    assert done.returncode == 8 and "VERIFICATION FAILED" in done.stderr
    assert set(hub.repos) == {SOURCE}


def test_no_access_is_said_in_words(release):
    hub, run = release
    hub.repos[SOURCE].gated = "all"
    done = run(token=None)
    assert done.returncode == 4 and "set HF_TOKEN" in done.stderr
