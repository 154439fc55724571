"""Commands under torchrun: the bytes of one process, one voice, one error."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from damage import tree
from gemmaq.calibration.complete import Basis
from gemmaq.cli import ranks
from gemmaq.convert.run import Conversion
from gemmaq.errors import UsageError
from gemmaq.inference.documents import read
from gemmaq.inference.peers import ALONE, Peers
from gemmaq.planning.request import Calibration, Refinement
from gemmaq.sources.open import open_source
from inprocess import refused, run
from small import call, environment, write_model

pytest.importorskip("torch")
FEW = ("--calibration-tokens", 9000, "--calibration-context", 64, "--threads", 1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "gemma-3-small")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    (folder / "other.txt").write_text("The quick brown dog jumps over the lazy fox. " * 800)
    path = folder / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 800)
    return path


def words(command: str, source: Path, text: Path, folder: Path) -> list[str]:
    """The command line of a short run."""
    given: dict[str, list[object]] = {
        "gptq": ["convert", source, "--method", "gptq", "--quant", "q4_0,iq4_nl", "--text", text, "-o", folder / "out"],
        "imatrix": ["imatrix", source, "--save-every", 80, "--text", text, "-o", folder / "out"],
    }
    scored = ["evaluate", folder.parent / "q8_0", "--reference", source, "--text", text, "--report", folder / "out"]
    few = ["--tokens", 1500, "--context", 64, "--threads", 1, "--no-cache"]
    return [*map(str, [*scored, *few] if command == "evaluate" else [*given[command], *FEW])]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "processes"), [("gptq", 3), ("imatrix", 2), ("evaluate", 2)])
def test_several_processes_write_the_bytes_of_one(
    source: Path, text: Path, tmp_path: Path, command: str, processes: int
) -> None:
    run("convert", source, "-o", tmp_path / "q8_0", "--quant", "q8_0", "-q")
    for name in ("one", "several"):
        (tmp_path / name).mkdir()
    alone = run(*words(command, source, text, tmp_path / "one"))
    done = call(words(command, source, text, tmp_path / "several"), processes)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "several") == tree(tmp_path / "one") != {}
    assert done.stdout.replace("/several/", "/one/") == alone.stdout
    told = f"in each of {processes} processes, besides torch; besides the codes, they send each other up to"
    assert (told in done.stderr) == (command == "gptq") and told not in alone.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("1:nan", 3, "the activations after layer 0 are not finite"),
        ("1:killed", 143, "another process of this run has ended, nothing half-written was kept"),
        ("1:bug", 1, "process 1: KeyError: 'layer'"),
        ("1:version", 2, "process 1 has another version of gemmaq than process 0: 0.0.9, not"),
        ("1:text", 2, "process 1 has another text than process 0"),
    ],
)
def test_all_processes_end_with_the_error_of_one(
    source: Path, text: Path, tmp_path: Path, fault: str, code: int, said: str
) -> None:
    worker = Path(__file__).parents[1] / "support" / "ranks_worker.py"
    started = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(worker)]
    done = subprocess.run(
        [*started, *words("gptq", source, text, tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**environment(), "FAULT": fault},
    )
    assert done.returncode == 1, "torchrun's own exit code"
    assert done.stderr.count(said) == 1, done.stderr
    assert f"exitcode  : {code} " in done.stderr, done.stderr
    assert tree(tmp_path) == {} and done.stdout == ""


def test_processes_that_nobody_started_are_told(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    refused(2, ("WORLD_SIZE is 2", "torchrun"), *words("gptq", source, text, tmp_path), under=tmp_path)


def test_what_several_processes_cannot_share_is_refused(source: Path, text: Path, tmp_path: Path) -> None:
    several, content = Peers(0, 2), read([text])
    basis = Basis(Calibration(content.names, content.digest), content, None)
    conversion = Conversion(open_source(str(source)), (), tmp_path, basis)
    refined = replace(basis, calibration=replace(basis.calibration, refine=Refinement(1.0)))
    ranks.check(several, conversion, False)
    ranks.check(ALONE, replace(conversion, basis=None), True)
    for odd, searching, said in (
        (conversion, True, "a search for types runs in a single process"),
        (replace(conversion, basis=refined), False, "--refine runs in a single process"),
        (replace(conversion, basis=None), False, "2 processes have nothing to share"),
    ):
        with pytest.raises(UsageError, match=said):
            ranks.check(several, odd, searching)
