"""What an artifact says of itself is derived again: altered with checksums made again, it is found."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from damage import small_model
from gemmaq.artifact import card, measured
from gemmaq.artifact.digests import of_files
from gemmaq.artifact.provenance import Quality
from gemmaq.convert.memory_table import MEMORY
from gemmaq.files import sums
from inprocess import run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("source") / "gemma-3-tiny-it")


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    run("convert", source, "-o", out, "--quant", "q4_0", "--quant", "q8_0")
    return out


@pytest.fixture
def artifact(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def list_again(artifact: Path) -> None:
    files = {path.name: path for path in artifact.iterdir() if path.name != sums.NAME}
    (artifact / sums.NAME).write_bytes(sums.text(of_files(files)))


def check(artifact: Path, source: Path, *options: object, code: int = 0) -> dict[str, Any]:
    """All problems and notes of the models."""
    said = json.loads(run("verify", artifact, "--against", source, "--json", *options, code=code).stdout)
    entries = said["artifacts"]
    return {key: [text for entry in entries for text in entry[key]] for key in ("problems", "notes")}


def signed(text: str) -> str:
    """A card with gemmaq's signature."""
    body = text.rpartition("<!-- written by gemmaq")[0]
    return f"{body}<!-- written by gemmaq, sha256 of the text above: {hashlib.sha256(body.encode()).hexdigest()} -->\n"


def test_what_was_made_is_not_flagged(artifact: Path, source: Path) -> None:
    assert check(artifact, source) == {"problems": [], "notes": []}


@pytest.mark.parametrize("name", ["Modelfile", "params", "README.md"])
@pytest.mark.parametrize(
    "change", [lambda data: data + b"x\n", lambda data: data.replace(b"0", b"1", 1), lambda data: b""]
)
def test_an_altered_file_is_found(artifact: Path, source: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    path = artifact / name
    path.write_bytes(change(path.read_bytes()) or b"\n")
    list_again(artifact)
    assert any(name in problem for problem in check(artifact, source, code=8)["problems"])


def test_a_card_that_was_signed_again_is_found(artifact: Path, source: Path) -> None:
    path = artifact / card.NAME
    path.write_text(signed(path.read_text().replace("license: gemma", "license: mit")))
    assert card.is_ours(path.read_text())
    list_again(artifact)
    assert any("README.md" in problem for problem in check(artifact, source, code=8)["problems"])
    told = check(artifact, source, "--own-card")
    assert told["problems"] == [] and any("README.md was not compared" in note for note in told["notes"])


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry["source"].update(format="gguf"),
        lambda entry: entry["source"]["files"][0].update(sha256="0" * 64),
        lambda entry: entry["source"]["files"][-1].update(bytes=1),
        lambda entry: entry["source"]["files"][-1].update(path="other.json"),
        lambda entry: entry["source"]["files"].pop(),
        lambda entry: entry["size"].update(parameters=1),
        lambda entry: entry["tensors"][0].update(how="lattice"),
        lambda entry: entry.update(warnings="none"),
        lambda entry: entry.update(method=["gptq"]),
        lambda entry: entry.update(author="somebody"),
    ],
)
@pytest.mark.parametrize("model", [0, 1])
def test_an_altered_entry_is_found(artifact: Path, source: Path, change: Callable[[Any], None], model: int) -> None:
    path = artifact / "gemmaq.json"
    value = json.loads(path.read_text())
    change(value["models"][model])
    path.write_text(json.dumps(value))
    list_again(artifact)
    assert any("gemmaq.json: " in problem for problem in check(artifact, source, "--own-card", code=8)["problems"])


def test_a_repository_that_the_source_does_not_name_is_told(artifact: Path, source: Path) -> None:
    path = artifact / "gemmaq.json"
    value = json.loads(path.read_text())
    value["models"][0]["source"]["repo"] = "acme/model"
    path.write_text(json.dumps(value))
    list_again(artifact)
    notes = check(artifact, source, "--own-card")["notes"]
    assert any("acme/model was not checked" in note for note in notes)


def test_measured_quality_is_told_and_not_flagged(artifact: Path, source: Path) -> None:
    quality = Quality("gemma-3-tiny-it", ("text",), 1000, 64, 0.5, 0.5, 10.0)
    measured.write(artifact, {0: quality, 1: quality}, memory=MEMORY)
    told = check(artifact, source)
    assert told["problems"] == []
    assert any("not measured again" in note for note in told["notes"])


def test_a_file_of_the_users_own_is_told(artifact: Path, source: Path) -> None:
    (artifact / "LICENSE").write_text("mine")
    list_again(artifact)
    assert any("LICENSE" in note for note in check(artifact, source, "--own-card")["notes"])


def test_metadata_of_the_sources_card_stay_when_quality_is_recorded(source: Path, tmp_path: Path) -> None:
    """`evaluate --record` writes the card anew without the source, whose metadata a GGUF header holds only in part."""
    own = Path(shutil.copytree(source, tmp_path / source.name))
    front = "license: other\nlicense_name: mine\nlicense_link: https://example.org\nlanguage: [de]\nbase_model: a/b"
    (own / "README.md").write_text(f"---\n{front}\n---\nA model.\n")
    quality = Quality("gemma-3-tiny-it", ("text",), 1000, 64, 0.5, 0.5, 10.0)
    for container in ("gguf", "mlx"):
        out = tmp_path / container
        run("convert", own, "-o", out, "--to", container)
        assert check(out, own) == {"problems": [], "notes": []}
        measured.write(out, {0: quality}, memory=MEMORY)
        assert check(out, own)["problems"] == []
        path = out / card.NAME
        path.write_text(signed(path.read_text().replace("license_name: mine", "license_name: mit")))
        list_again(out)
        if "license_name" in path.read_text():
            assert any("README.md" in problem for problem in check(out, own, code=8)["problems"])


@pytest.mark.parametrize("value", [5, ["x"], [{"path": 1}], None])
@pytest.mark.parametrize("key", ["files", "format"])
def test_a_source_of_another_kind_is_told(artifact: Path, source: Path, key: str, value: object) -> None:
    path = artifact / "gemmaq.json"
    document = json.loads(path.read_text())
    document["models"][0]["source"][key] = value
    path.write_text(json.dumps(document))
    list_again(artifact)
    assert any("its source" in problem for problem in check(artifact, source, "--own-card", code=8)["problems"])


def test_a_renamed_gguf_source_is_told(artifact: Path, tmp_path: Path) -> None:
    (original,) = artifact.glob("*Q8_0.gguf")
    run("convert", original, "-o", tmp_path / "again", "--quant", "q4_0")
    renamed = Path(shutil.copy(original, tmp_path / "renamed.gguf"))
    told = check(tmp_path / "again", renamed)
    assert told["problems"] == []
    assert [note for note in told["notes"] if "another name here" in note]


@pytest.mark.parametrize("container", ["mlx", "safetensors"])
def test_a_folder_with_a_file_of_ones_own_keeps_its_card(source: Path, tmp_path: Path, container: str) -> None:
    run("convert", source, "-o", tmp_path / "out", "--to", container)
    (tmp_path / "out" / "LICENSE").write_text("mine")
    list_again(tmp_path / "out")
    told = check(tmp_path / "out", source)
    assert told["problems"] == [] and any("LICENSE" in note for note in told["notes"])


def test_a_warning_that_is_left_out_is_found(artifact: Path, tmp_path: Path) -> None:
    """A file that is quantized a second time comes with a warning; a sentence of one's own is told."""
    (original,) = artifact.glob("*Q8_0.gguf")
    out = tmp_path / "again"
    run("convert", original, "-o", out, "--quant", "q4_0")
    path = out / "gemmaq.json"
    value = json.loads(path.read_text())
    before = value["models"][0]["warnings"]
    assert any("quantized a second time" in text for text in before)
    for warnings, code in (([*before, "all is well"], 0), ([text for text in before if "second" not in text], 8)):
        value["models"][0]["warnings"] = warnings
        path.write_text(json.dumps(value))
        list_again(out)
        told = check(out, original, "--own-card", code=code)
        assert any("all is well" in note for note in told["notes"]) == (code == 0)
        assert any("lacks" in problem and "second time" in problem for problem in told["problems"]) == (code == 8)
