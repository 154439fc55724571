"""`gemmaq convert --keep-imatrix`: the importance matrix lies beside the model, and is a part of the artifact."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
import gemma4_tokenizer
from damage import contained
from fake_hub import FakeHub
from gemmaq.calibration import imatrix
from gemmaq.files import sums
from gemmaq.sources.open import open_source
from home import Settle
from inprocess import refused, run
from oracles import llama_reads_imatrix, need, need_ggml

SHORT = ("--calibration-tokens", 128, "--calibration-context", 32)
NAME = "gemma-3-small.imatrix.gguf"
EVERYWHERE = ("--to", "gguf", "--to", "mlx")


@pytest.fixture(scope="module", autouse=True)
def _torch(require: Callable[[bool, str], None]) -> None:
    need(require, "torch", "transformers")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("some-private-folder") / "letters.txt"
    path.write_text("".join(chr(97 + n * n % 26) for n in range(2000)))
    return path


@pytest.fixture(scope="module")
def kept(small: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts with their matrix; not to be changed."""
    out = tmp_path_factory.mktemp("kept") / "out"
    options = ("--method", "importance", "--text", text, *SHORT, "--keep-imatrix")
    run("convert", small, *options, *EVERYWHERE, "-q", "-o", out)
    return out


def calibration_of(folder: Path) -> dict[str, Any]:
    said = json.loads((folder / "gemmaq.json").read_text())
    found: dict[str, Any] = said.get("models", [said])[0]["recipe"]["calibration"]
    return found


def test_the_matrix_is_that_of_gemmaq_imatrix(small: Path, text: Path, kept: Path, tmp_path: Path) -> None:
    run("imatrix", small, "--text", text, *SHORT, "-q", "-o", tmp_path / "made.gguf")
    for container in ("gguf", "mlx"):
        assert (kept / container / NAME).read_bytes() == (tmp_path / "made.gguf").read_bytes()


def test_the_matrix_is_listed_wherever_files_are(
    small: Path, text: Path, kept: Path, hub: FakeHub, settle: Settle
) -> None:
    hub.tokens["hf_write"]["orgs"] = ["acme"]
    here = settle(hub, "hf_write")
    options = ("--method", "importance", "--text", text, *SHORT, "--keep-imatrix", "--dry-run", "--force", "--json")
    foretold = json.loads(run("convert", small, *options, *EVERYWHERE, "-o", kept).stdout)["artifacts"]
    for container, artifact in zip(("gguf", "mlx"), foretold, strict=True):
        folder = kept / container
        size = (folder / NAME).stat().st_size
        assert {file["path"]: file["bytes"] for file in artifact["files"]}[NAME] == size
        assert NAME in sums.read(folder) and NAME in (folder / "README.md").read_text()
        assert calibration_of(folder)["matrix"]["size"] == size
        pushed = json.loads(here.run("push", folder, f"acme/{container}", "--dry-run", "--json").stdout)["files"]
        assert NAME in [file["path"] for file in pushed]


def test_the_model_beside_it_is_the_only_one(kept: Path) -> None:
    for container in ("gguf", "mlx"):
        assert open_source(str(kept / container)).parameters
        run("verify", kept / container, "-q")


def test_it_is_derived_again(small: Path, text: Path, kept: Path, tmp_path: Path) -> None:
    run("verify", kept, "--against", small, "--text", text, "-q")
    artifact = Path(shutil.copytree(kept / "gguf", tmp_path / "gguf"))
    content = bytearray((artifact / NAME).read_bytes())
    content[-1] ^= 1
    (artifact / NAME).write_bytes(content)
    done = run("verify", artifact, "--against", small, "--text", text, code=8)
    assert f"{NAME}: it is not what gemmaq writes" in done.stdout
    (artifact / NAME).unlink()
    assert f"{NAME} is missing" in run("verify", artifact, "--against", small, code=8).stdout


def test_without_text_codes_are_checked_with_it(small: Path, kept: Path, tmp_path: Path) -> None:
    (entry,) = json.loads(run("verify", kept / "gguf", "--against", small, "--json").stdout)["artifacts"]
    assert all(tensor["equal"] for tensor in entry["tensors"])
    assert entry["notes"] == [f"the importance matrix {NAME} was taken as it is: its text is checked with --text"]


def test_a_matrix_that_was_given_is_kept_without_folders(small: Path, text: Path, tmp_path: Path) -> None:
    some = tmp_path / "private.gguf"
    run("imatrix", small, "--text", text, *SHORT, "-q", "-o", some)
    some.write_bytes(some.read_bytes().replace(b"letters.txt", b"/home/a.txt"))
    out = tmp_path / "out"
    run("convert", small, "--method", "importance", "--imatrix", some, "--keep-imatrix", "-q", "-o", out)
    found = imatrix.read(out / NAME)
    assert b"/home" not in (out / NAME).read_bytes() and found.datasets == ("a.txt",)
    assert calibration_of(out)["matrix"]["file"] == NAME
    run("verify", out, "--against", small, "--imatrix", some, "-q")
    again = tmp_path / "again"
    run("convert", small, "--method", "importance", "--imatrix", out / NAME, "-q", "-o", again)
    ours, theirs = contained(out), contained(again)
    assert {name: theirs[name] for name in theirs if name in ours} == {n: c for n, c in ours.items() if n in theirs}


def test_the_size_is_foretold_for_experts_too(tmp_path: Path) -> None:
    source = gemma4.write(tmp_path / "gemma-4-tiny", gemma4.EXPERTS)
    gemma4_tokenizer.write(source)
    (tmp_path / "text.txt").write_text("\n".join(gemma4_tokenizer.texts(60)))
    options = ("--method", "importance", "--text", tmp_path / "text.txt", *SHORT, "--keep-imatrix", "--json")
    sizes = []
    for more in (("--dry-run",), ()):
        said = json.loads(run("convert", source, *options, *more, "-o", tmp_path / "out").stdout)
        sizes.append({file["path"]: file["bytes"] for file in said["artifacts"][0]["files"]})
    assert sizes[0].items() <= sizes[1].items() and "gemma-4-tiny.imatrix.gguf" in sizes[0]


def test_nothing_to_keep_is_a_mistake(small: Path, text: Path, out: Path, tmp_path: Path) -> None:
    for options in ((), ("--method", "gptq", "--text", text, *SHORT)):
        words = ("--keep-imatrix", "method importance")
        refused(2, words, "convert", small, *options, "--keep-imatrix", "-o", out, under=tmp_path)


@pytest.mark.oracle
def test_llama_quantize_reads_it(require: Callable[[bool, str], None], kept: Path) -> None:
    need_ggml(require)
    found, chunks, size = llama_reads_imatrix(kept / "gguf" / NAME)
    some = imatrix.read(kept / "gguf" / NAME)
    assert (set(found), chunks, size) == (set(some.entries), 4, 32)
    for name, values in found.items():
        np.testing.assert_array_equal(values, some.entries[name].sums)


def test_types_of_a_ladder_share_the_matrix(small: Path, text: Path, kept: Path, tmp_path: Path) -> None:
    options = ("--method", "importance", "--text", text, *SHORT, "--keep-imatrix")
    run("convert", small, "--quant", "q4_0", "--quant", "q5_0", *options, "-q", "-o", tmp_path / "out")
    assert (tmp_path / "out" / NAME).read_bytes() == (kept / "gguf" / NAME).read_bytes()
    assert len([*(tmp_path / "out").glob("*.gguf")]) == 3
    said = json.loads(run("verify", tmp_path / "out", "--against", small, "--json").stdout)
    assert all(tensor["equal"] for entry in said["artifacts"] for tensor in entry["tensors"]), "by the matrix beside it"
