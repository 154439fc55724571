"""`gemmaq verify`: a good artifact, a damaged one, and how each is reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import oracles
from gemmaq.verify import engines
from gemmaq.verify.engines import process
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


@pytest.mark.oracle
@pytest.mark.slow
def test_a_run_in_llama_cpp(small: Path, small_gguf: Path, require: Callable[[bool, str], None]) -> None:
    oracles.need(require, "xllamacpp", "torch", "transformers")
    done = run("verify", small_gguf, "--run", "--tokens", 4, "--against", small, "--json")
    said = json.loads(done.stdout)["artifacts"][0]["run"]
    assert said["agreed"] and said["runtime"] == "xllamacpp" and len(said["tokens"]) == 4
    assert 0 <= said["shortfall"] <= said["margin"] and 0 <= said["source_same"] <= 4
    plain = run("verify", small_gguf, "--runtime", "xllamacpp", "--tokens", 2, "--prompt", "piece5")
    assert "continues '<bos>piece5'" in plain.stdout
    assert "llama" not in plain.stderr.replace("xllamacpp", "")


def test_a_run_that_does_not_agree_is_failed_verification(
    small_gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = process.Answer("7", (2,), (5,), (-90.0,))
    monkeypatch.setattr(engines, "find", lambda engine: engines.Installed(engine, Path("python")))

    def ask(runtime: engines.Installed, job: dict[str, Any], timeout: float) -> process.Answer:
        return answer

    monkeypatch.setattr(process, "ask", ask)
    done = run("verify", small_gguf, "--run", "--tokens", 1, "--json", code=VERIFICATION)
    (entry,) = json.loads(done.stdout)["artifacts"]
    assert entry["run"]["agreed"] is False and "does not compute what the file holds" in entry["problems"][0]
    said = run("verify", small_gguf, "--run", "--tokens", 1, "-q", code=VERIFICATION).stdout
    assert said.startswith("xllamacpp 7 does not compute")


def test_a_damaged_artifact_is_not_run(small_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(small_gguf, tmp_path / "out"))
    weights = next(folder.glob("*.gguf"))
    content = bytearray(weights.read_bytes())
    content[-18:] = bytes(18)
    weights.write_bytes(content)
    done = run("verify", folder, "--run", code=VERIFICATION)
    assert "not run, as it failed the checks before" in done.stderr and weights.name in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tokens", 4), "--tokens needs --run"),
        (("--prompt", "x"), "--prompt needs --run"),
        (("--run", "--prompt", " "), "--prompt is empty"),
        (("--run", "--tokens", 257), "more than the 256"),
        (("--runtime", "ollama"), "unknown runtime 'ollama'"),
        (("--runtime", "mlx-lm"), "mlx-lm does not load"),
    ],
)
def test_a_run_that_cannot_be_is_refused(words: tuple[object, ...], said: str, small_gguf: Path) -> None:
    assert said in run("verify", small_gguf, *words, code=2).stderr


def test_no_runtime_at_all(small_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find", lambda engine: None)
    said = run("verify", small_gguf, "--run", code=2).stderr
    assert "no runtime that loads GGUF is installed" in said and "pip install xllamacpp" in said
