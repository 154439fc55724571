"""recipes/torchrun.sh and slurm.sh: the bytes of one process, written once, and what is missing is asked for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from damage import tree
from inprocess import run
from small import environment, write_model

pytest.importorskip("torch")
pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parents[1] / "recipes"
FEW = ("--calibration-tokens", "9000", "--calibration-context", "64", "--calibration-kind", "prose")


def fake(folder: Path, name: str, script: str) -> None:
    """Put a command into a folder of the search path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_model(tmp_path / "gemma-3-small")


@pytest.fixture
def wanted(source: Path, tmp_path: Path) -> dict[str, bytes | None]:
    """What a single process writes."""
    run("convert", source, "--method", "gptq", *FEW, "-o", tmp_path / "alone" / "out")
    return tree(tmp_path / "alone")


def started(script: str, words: Sequence[object], folder: Path, **variables: object) -> subprocess.Popen[str]:
    """A recipe in a folder of its own, where it may write."""
    folder.mkdir(exist_ok=True)
    path = os.pathsep.join([str(folder.parent / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        ["sh", str(RECIPES / script), *map(str, words)],
        cwd=folder,
        env={**environment(), "PATH": path, "OPTIONS": " ".join(FEW), **{k: str(v) for k, v in variables.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    """What a recipe said when it ended well."""
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return stderr


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_processes_of_one_machine(source: Path, wanted: dict[str, bytes | None], tmp_path: Path) -> None:
    ended(started("torchrun.sh", (source, "out"), tmp_path / "here", PROCESSES=2))
    assert tree(tmp_path / "here") == wanted


def test_two_machines(source: Path, wanted: dict[str, bytes | None], tmp_path: Path) -> None:
    """The first writes; the other has no output."""
    both = {"NODES": 2, "FIRST": "127.0.0.1", "PORT": free_port()}
    machines = [started("torchrun.sh", (source, "out"), tmp_path / f"m{node}", NODE=node, **both) for node in (0, 1)]
    for machine in machines:
        ended(machine)
    assert tree(tmp_path / "m0") == wanted
    assert tree(tmp_path / "m1") == {}


def test_nodes_of_a_cluster(source: Path, wanted: dict[str, bytes | None], tmp_path: Path) -> None:
    """SLURM's own commands are replaced: srun starts the command as often as there are nodes."""
    tools = tmp_path / "bin"
    tools.mkdir()
    fake(tools, "scontrol", 'echo "127.0.0.1\nelsewhere"')
    fake(tools, "srun", '"$@" &\nfirst=$!\n"$@" && wait $first')
    slurm = {"SLURM_JOB_NODELIST": "n[0-1]", "SLURM_JOB_NUM_NODES": 2, "SLURM_JOB_ID": 71, "PORT": free_port()}
    ended(started("slurm.sh", (source, "out"), tmp_path / "shared", **slurm))
    assert tree(tmp_path / "shared") == wanted


@pytest.mark.parametrize(
    ("words", "variables", "asked"),
    [
        ((), {}, "which checkpoint"),
        (("model",), {}, "which folder to write"),
        (("model", "out"), {"NODES": "two"}, "NODES is not a number: two"),
        (("model", "out"), {"NODES": 2}, "which of them this one is"),
        (("model", "out"), {"NODES": 2, "NODE": 0}, "which machine is the first"),
    ],
)
def test_what_is_missing_is_asked_for(
    words: tuple[str, ...], variables: dict[str, object], asked: str, tmp_path: Path
) -> None:
    process = started("torchrun.sh", words, tmp_path / "here", **variables)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode and asked in stderr
