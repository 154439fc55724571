"""`convert --draft`: the drafter beside the model, on record, checked against its source, a source again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import gemma4
import gemma4_drafter
import gemma4_tokenizer
from gemma4_drafter import DRAFTERS
from gemmaq.models.gemma4_drafter.names import place
from grids import trained_for_q4_0
from inprocess import VERIFICATION, run
from oracles import read_gguf
from records import recorded


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A target, and its drafter, which is trained for Q4_0."""
    root = tmp_path_factory.mktemp("sources")
    drafter = DRAFTERS["unified"]
    made = {
        name: trained_for_q4_0(x) if place(name).role.is_quantizable else x
        for name, x in gemma4_drafter.weights(drafter.config)
    }
    target = gemma4_tokenizer.write(gemma4.write(root / "gemma-4-unified-it", gemma4.UNIFIED))
    return target, gemma4_drafter.write(root / "gemma-4-unified-it-assistant", drafter, made)


@pytest.fixture(scope="module")
def artifact(sources: tuple[Path, Path]) -> Path:
    target, drafter = sources
    run("convert", target, "--draft", drafter, "-q", "-o", target.parent / "out")
    return target.parent / "out"


def test_the_drafter_lies_beside_the_model_in_its_type(sources: tuple[Path, Path], artifact: Path) -> None:
    files = sorted(path.name for path in artifact.glob("*.gguf"))
    assert files == ["gemma-4-unified-it-Q4_0.gguf", "mtp-gemma-4-unified-it-Q4_0.gguf"]
    run("convert", sources[1], "-q", "-o", artifact.parent / "alone")
    alone = read_gguf(artifact.parent / "alone/mtp-gemma-4-unified-it-Q4_0.gguf")
    assert read_gguf(artifact / files[1]) == alone
    run("convert", sources[0], "-q", "-o", artifact.parent / "target")
    assert (artifact.parent / f"target/{files[0]}").read_bytes() == (artifact / files[0]).read_bytes()


def test_gemmaq_json_tells_both_sources(artifact: Path) -> None:
    record = recorded(artifact)
    assert record["drafter"]["name"] == "gemma-4-unified-it-assistant" and record["recipe"]["draft"] is True
    assert {file["path"] for file in record["files"]} == {path.name for path in artifact.glob("*.gguf")}
    how = {tensor["name"]: tensor["how"] for tensor in record["tensors"]}
    assert how["drafter.nextn.pre_projection.weight"] == how["drafter.token_embd.weight"] == "lattice"
    assert how["drafter.rope_freqs.weight"] == how["rope_freqs.weight"] == "generated"


def test_bytes_are_known_ahead(sources: tuple[Path, Path], artifact: Path) -> None:
    target, drafter = sources
    report = json.loads(run("convert", target, "--draft", drafter, "--dry-run", "--json").stdout)
    sizes = {file["path"]: file["bytes"] for file in report["artifacts"][0]["files"]}
    assert sizes == {path.name: path.stat().st_size for path in artifact.glob("*.gguf")}


def test_an_artifact_with_a_drafter_is_verified(sources: tuple[Path, Path], artifact: Path, tmp_path: Path) -> None:
    target, drafter = sources
    run("verify", artifact)
    done = run("verify", artifact, "--against", target, "--draft", drafter)
    count = len(recorded(artifact)["tensors"]) - 2
    assert f"all {count} tensors are what gemmaq makes of the source" in done.stdout
    alone = run("verify", artifact, "--against", target)
    assert "the drafter beside the model is not checked" in alone.stderr and "--draft SOURCE" in alone.stderr
    assert "--draft needs --against" in run("verify", artifact, "--draft", drafter, code=2).stderr


def test_damage_to_a_drafter_is_found(sources: tuple[Path, Path], artifact: Path, tmp_path: Path) -> None:
    """By the digests, and without them by comparing with the source."""
    target, drafter = sources
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    file = copy / "mtp-gemma-4-unified-it-Q4_0.gguf"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert file.name in run("verify", copy, code=VERIFICATION).stdout
    told = run("verify", copy, "--against", target, "--draft", drafter, code=VERIFICATION).stdout
    assert "tensor drafter." in told


def test_a_drafter_of_another_model_beside_it_is_a_problem(artifact: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    other = gemma4_drafter.write(tmp_path / "gemma-4-effective-it-assistant", DRAFTERS["effective"])
    run("convert", other, "-q", "-o", tmp_path / "other")
    shutil.copy(tmp_path / "other/mtp-gemma-4-effective-it-Q4_0.gguf", copy)
    told = run("verify", copy, code=VERIFICATION).stdout
    assert "2 drafters, and a runtime may load any of them: mtp-gemma-4-effective-it-Q4_0.gguf, mtp-gemma-4-un" in told


def test_an_artifact_is_a_source_again_with_and_without_its_drafter(artifact: Path, tmp_path: Path) -> None:
    said = run("convert", artifact, "--quant", "q4_0", "-o", tmp_path / "again").stderr
    assert "mtp-gemma-4-unified-it-Q4_0.gguf is taken as the model's drafter" in said
    for path in artifact.glob("*.gguf"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    run("verify", tmp_path / "again", "--against", artifact)
    run("convert", artifact, "--draft", "none", "--quant", "q4_0", "-q", "-o", tmp_path / "without")
    assert [path.name for path in (tmp_path / "without").glob("*.gguf")] == ["gemma-4-unified-it-Q4_0.gguf"]


def test_a_calibrated_model_has_a_drafter_that_is_not_calibrated(sources: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    target, drafter = sources
    text = tmp_path / "text.txt"
    text.write_text("the other nation of all that was not for this " * 40)
    flags = ("--method", "importance", "--text", text, "--calibration-tokens", 256, "--calibration-context", 64)
    run("convert", target, "--draft", drafter, *flags, "-q", "-o", tmp_path / "out")
    record = recorded(tmp_path / "out")
    methods = {tensor["name"]: tensor["method"] for tensor in record["tensors"]}
    assert methods["blk.0.attn_q.weight"] == "importance" and methods["drafter.blk.0.attn_q.weight"] == "lattice"


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--to", "mlx"), 2, "--draft is for gguf, not for mlx"),
        (("--to", "mlx", "--to", "safetensors"), 2, "not for mlx and safetensors"),
    ],
)
def test_other_containers_have_no_place_for_a_drafter(
    sources: tuple[Path, Path], tmp_path: Path, flags: tuple[str, ...], code: int, words: str
) -> None:
    target, drafter = sources
    done = run("convert", target, "--draft", drafter, *flags, "-o", tmp_path / "out", code=code)
    assert words in done.stderr and not (tmp_path / "out").exists()


def test_gguf_among_others_gets_the_drafter(sources: tuple[Path, Path], tmp_path: Path) -> None:
    target, drafter = sources
    said = run("convert", target, "--draft", drafter, "--to", "gguf", "--to", "mlx", "-o", tmp_path / "out").stderr
    assert "note: the drafter is left out of mlx" in said and "warning:" not in said
    cards = ", ".join(str(tmp_path / "out" / container / "README.md") for container in ("gguf", "mlx"))
    assert said.splitlines()[-1].endswith(f"Memory and more: {cards}")
    assert f"  cd {tmp_path / 'out/mlx'}\n  mlx_lm.chat --model .\n" in said
    assert len(list((tmp_path / "out/gguf").glob("mtp-*"))) == 1
    assert "drafter" not in recorded(tmp_path / "out/mlx")
    run("verify", tmp_path / "out", "--against", target, "--draft", drafter)


def test_what_is_no_drafter_of_the_model_is_refused(sources: tuple[Path, Path], tmp_path: Path) -> None:
    target, drafter = sources
    other = gemma4_drafter.write(tmp_path / "gemma-4-dense-it-assistant", DRAFTERS["dense"])
    for wrong, words in ((other, "it is for sliding-window layers with keys of 256, not 128"), (target, "no drafter")):
        assert words in run("convert", target, "--draft", wrong, "-o", tmp_path / "out", code=3).stderr
    run("convert", drafter, "--draft", drafter, "-o", tmp_path / "out", code=3)
    run("convert", target, "--draft", tmp_path / "nowhere", "-o", tmp_path / "out", code=5)
    assert not (tmp_path / "out").exists()
