"""Artifacts that are not what was made: found, named, refused with code 8. Those that are, and others': good."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from damage import edit_header, edit_json
from gemmaq.errors import NotFoundError
from gemmaq.files import sums
from gemmaq.verify.examine import check, examine
from inprocess import run
from kinds import KINDS, folders
from records import edit_record

FLIPS = {kind: 20 if "seeing" in kind else 60 for kind in KINDS}
"""Number of bits flipped in each kind of artifact; those with vision have a large tokenizer."""


@pytest.fixture
def copy(made: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an artifact, to be spoilt."""
    return lambda kind: Path(shutil.copytree(made[kind], tmp_path / "copy"))


def listed_anew(folder: Path) -> None:
    """Have SHA256SUMS list what is there now, as who changes an artifact on purpose would."""
    from gemmaq.artifact.digests import of_files

    paths = {path.name: path for path in folder.iterdir() if path.name != sums.NAME}
    (folder / sums.NAME).write_bytes(sums.text(of_files(paths)))


def bad(artifact: Path, *words: str) -> list[str]:
    """The problems of an artifact, of which one has all these words; the command ends with 8 and tells of them too."""
    problems = check(artifact)
    assert any(all(word in problem for word in words) for problem in problems), problems
    done = run("verify", artifact, "-q", code=8)
    assert done.stdout.splitlines()[:20] == problems[:20]
    return problems


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_made_is_good(kind: str, made: dict[str, Path]) -> None:
    assert check(made[kind]) == []
    said = run("verify", made[kind]).stdout
    assert said.count("files are what SHA256SUMS says, headers") == len(folders(made[kind]))
    assert said.count(" are OK") == len(folders(made[kind]))
    report = json.loads(run("verify", made[kind], "--json").stdout)
    assert report["schema"] == "gemmaq.verify/1" and report["ok"] is True and report["against"] is None
    assert [Path(entry["path"]) for entry in report["artifacts"]] == folders(made[kind])
    for entry in report["artifacts"]:
        assert entry["sums"] and entry["recipe"] and entry["problems"] == []
        listed = sums.read(Path(entry["path"]))
        assert {file["path"]: file["sha256"] for file in entry["files"] if file["path"] != sums.NAME} == listed


@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_bit_anywhere_is_found(kind: str, copy: Callable[[str], Path]) -> None:
    """In every file, in its first and last byte, and at seeded places all over."""
    artifact = copy(kind)
    files = sorted(path for path in artifact.rglob("*") if path.is_file())
    seeded = random.Random(kind)
    places = [(path, at) for path in files for at in (0, path.stat().st_size - 1)]
    while len(places) < FLIPS[kind]:
        path = seeded.choice(files)
        places.append((path, seeded.randrange(path.stat().st_size)))
    for path, at in places:
        bit = 1 << seeded.randrange(8)
        with path.open("r+b") as file:
            byte = os.pread(file.fileno(), 1, at)[0]
            os.pwrite(file.fileno(), bytes([byte ^ bit]), at)
            problems = check(artifact)
            os.pwrite(file.fileno(), bytes([byte]), at)
        named = path.relative_to(artifact).as_posix()
        assert problems, f"bit {bit:#x} of byte {at} of {named}"
        assert path.name == sums.NAME or any(named in problem for problem in problems), problems
    assert check(artifact) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_found(kind: str, copy: Callable[[str], Path], tmp_path: Path) -> None:
    artifact = copy(kind)
    for path in sorted(path for path in artifact.rglob("*") if path.is_file()):
        path.rename(tmp_path / "away")
        bad(artifact, path.relative_to(artifact).as_posix(), "is missing")
        (tmp_path / "away").rename(path)
    assert check(artifact) == []


def test_a_list_of_files_that_are_gone_is_enough(copy: Callable[[str], Path]) -> None:
    artifact = copy("gguf")
    for path in artifact.iterdir():
        if path.name != sums.NAME:
            path.unlink()
    bad(artifact, "gemmaq.json is missing")


@pytest.mark.parametrize(
    "name", ["model-00009-of-00009.safetensors", "notes.txt", "deep/er/file", ".hidden", "mmproj-x.gguf"]
)
def test_an_added_file_is_found(name: str, copy: Callable[[str], Path]) -> None:
    artifact = copy("mlx")
    (artifact / name).parent.mkdir(parents=True, exist_ok=True)
    (artifact / name).write_bytes(b"x")
    bad(artifact, f"{name} is not in SHA256SUMS")


def test_what_is_no_file_is_found(copy: Callable[[str], Path], tmp_path: Path) -> None:
    artifact = copy("mlx")
    os.mkfifo(artifact / "pipe")
    bad(artifact, "pipe is not a regular file")
    (artifact / "pipe").unlink()
    (artifact / "link").symlink_to(tmp_path)
    bad(artifact, "link is not a regular file")


def test_what_fetching_leaves_is_passed_over(copy: Callable[[str], Path]) -> None:
    artifact = copy("mlx")
    record = artifact / ".cache/huggingface/download/config.json.metadata"
    record.parent.mkdir(parents=True)
    record.write_text("x")
    (artifact / ".gitattributes").write_text("x")
    assert check(artifact) == []


def test_files_in_each_others_place_are_found(copy: Callable[[str], Path]) -> None:
    artifact = copy("gguf")
    first, second = sorted(artifact.glob("*.gguf"))[:2]
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    bad(artifact, first.name, "it was changed")
    listed_anew(artifact)
    bad(artifact, second.name, "is not what gemmaq.json says")


def test_a_projector_of_another_model_is_found(copy: Callable[[str], Path], made: dict[str, Path]) -> None:
    artifact = copy("mmproj")
    projector = next(artifact.glob("mmproj*"))
    content = bytearray(projector.read_bytes())
    at = content.index(b"clip.vision.projection_dim") + len("clip.vision.projection_dim") + 4
    content[at : at + 4] = (128).to_bytes(4, "little")
    projector.write_bytes(content)
    bad(artifact, projector.name, "it was changed")
    listed_anew(artifact)
    problems = bad(artifact, projector.name, "it is for a model of width 128, not 64")
    assert any("is not what gemmaq.json says" in problem for problem in problems)
    foreign = artifact.with_name("foreign")
    foreign.mkdir()
    for path in artifact.glob("*.gguf"):
        shutil.copy(path, foreign)
    bad(foreign, projector.name, "is passed over")
    shutil.copy(projector, foreign / "mmproj-second.gguf")
    bad(foreign, "2 mmproj files")


def test_an_artifact_that_was_not_finished_is_found(copy: Callable[[str], Path]) -> None:
    artifact = copy("mlx")
    (artifact / sums.NAME).unlink()
    bad(artifact, "SHA256SUMS is missing: the artifact was not finished")


def _tensor(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda said: said["tensors"][2].update(changes)


EDITS: list[tuple[Callable[[dict[str, Any]], object], tuple[str, ...]]] = [
    (lambda said: said["files"][0].update(sha256="0" * 64), ("model.safetensors is not what gemmaq.json says",)),
    (lambda said: said["files"][0].update(bytes=1), ("model.safetensors is not what gemmaq.json says",)),
    (lambda said: said["files"][0].update(path="../other"), ("../other", "outside the folder")),
    (lambda said: said["files"].clear(), ("model.safetensors is not named in gemmaq.json",)),
    (_tensor(name="model.layers.9.weight"), ("tensor model.layers.9.weight is missing",)),
    (_tensor(type="q8_0"), ("model.layers.0.self_attn.q_proj.weight is U32 [64, 8], gemmaq.json says U32 [64, 16]",)),
    (_tensor(shape=[64, 32]), ("model.layers.0.self_attn.q_proj", "gemmaq.json says")),
    (_tensor(type="q9"), ("gemmaq.json is not what gemmaq writes",)),
    (_tensor(shape="many"), ("gemmaq.json is not what gemmaq writes",)),
    (lambda said: said["tensors"].pop(), ("tensor model.norm.weight is not in gemmaq.json",)),
    (lambda said: said.pop("recipe"), ("gemmaq.json is not what gemmaq writes",)),
    (lambda said: said["recipe"].update(quant="q9_9"), ("gemmaq.json is not what gemmaq writes",)),
    (lambda said: said["recipe"].update(rules=7), ("gemmaq.json is not what gemmaq writes",)),
]


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_an_edited_gemmaq_json_is_found_though_listed_anew(number: int, copy: Callable[[str], Path]) -> None:
    artifact = copy("mlx")
    change, words = EDITS[number]
    edit_record(artifact, change)
    bad(artifact, "gemmaq.json is not what SHA256SUMS says")
    listed_anew(artifact)
    bad(artifact, *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": "gemmaq.artifact/9"}, ("has the schema 'gemmaq.artifact/9'",)),
        ({"container": "gguf"}, ("is not a GGUF file",)),
        ({"models": []}, ("gemmaq.json is not what gemmaq writes", "no models")),
        ({"models": {}}, ("gemmaq.json is not what gemmaq writes",)),
        ({"models": 7}, ("gemmaq.json is not what gemmaq writes",)),
    ],
)
def test_an_edited_beginning_of_gemmaq_json_is_found(
    changes: dict[str, Any], words: tuple[str, ...], copy: Callable[[str], Path]
) -> None:
    artifact = copy("mlx")
    edit_json(artifact / "gemmaq.json", lambda document: document.update(changes))
    listed_anew(artifact)
    bad(artifact, *words)


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"', "\ud800"])
def test_a_gemmaq_json_that_is_none_is_found(content: str, copy: Callable[[str], Path]) -> None:
    artifact = copy("mlx")
    (artifact / "gemmaq.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    listed_anew(artifact)
    bad(artifact, "gemmaq.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("0", "1"), ("is not what SHA256SUMS says",)),
        (lambda text: text.upper(), ("SHA256SUMS, line 1",)),
        (lambda text: text.rstrip("\n"), ("SHA256SUMS is cut short",)),
        (lambda text: text + text, ("SHA256SUMS lists README.md twice",)),
        (lambda text: text + "# comment\n", ("is not in the format of sha256sum",)),
        (lambda text: "".join(text.splitlines(keepends=True)[1:]), ("README.md is not in SHA256SUMS",)),
        (lambda text: "", ("is not in SHA256SUMS",)),
        (lambda text: text + "0" * 64 + "  ../../secret\n", ("../../secret is missing",)),
    ],
)
def test_an_edited_list_is_found(
    change: Callable[[str], str], words: tuple[str, ...], copy: Callable[[str], Path]
) -> None:
    artifact = copy("mlx")
    path = artifact / sums.NAME
    path.write_text(change(path.read_text()))
    bad(artifact, *words)


def test_headers_that_do_not_fit_are_found_though_everything_else_does(copy: Callable[[str], Path]) -> None:
    """A list and a gemmaq.json of the changed file, as no accident would write them."""
    from gemmaq.artifact.digests import of_file

    artifact = copy("bf16")
    path = sorted(artifact.glob("*.safetensors"))[-1]
    edit_header(path, lambda header: header.update({"more": header["model.norm.weight"] | {"data_offsets": [0, 0]}}))
    edit_header(path, lambda header: header["more"].update(shape=[0]))

    def change(said: dict[str, Any]) -> None:
        (file,) = (file for file in said["files"] if file["path"] == path.name)
        file.update(sha256=of_file(path), bytes=path.stat().st_size)

    edit_record(artifact, change)
    listed_anew(artifact)
    bad(artifact, "tensor more is not in gemmaq.json")


def test_several_in_one_folder(copy: Callable[[str], Path]) -> None:
    artifact = copy("several")
    assert [report.name for report in examine(artifact)] == ["gguf", "mlx", "safetensors"]
    (artifact / "mlx/config.json").write_text("{}")
    bad(artifact, "mlx/config.json is not what SHA256SUMS says")
    assert check(artifact / "gguf") == []
    (artifact / "stray.txt").write_text("x")
    bad(artifact, "stray.txt belongs to none of the artifacts")


def test_what_is_of_others_is_read_as_far_as_it_can_be(made: dict[str, Path], source: Path, tmp_path: Path) -> None:
    assert check(source) == []
    said = run("verify", source).stdout
    assert "without SHA256SUMS and gemmaq.json" in said
    run("convert", source, "-q", "-o", tmp_path / "out")
    plain = tmp_path / "plain.gguf"
    shutil.copy(next((tmp_path / "out").glob("*.gguf")), plain)
    assert "without SHA256SUMS and gemmaq.json" in run("verify", plain).stdout
    report = json.loads(run("verify", plain, "--json").stdout)
    (entry,) = report["artifacts"]
    assert (entry["sums"], entry["recipe"], entry["format"], entry["gemmaq"]) == (False, False, "gguf", None)
    os.truncate(plain, plain.stat().st_size // 2)
    bad(plain, "truncated")
    shard = sorted(made["gguf"].glob("*.gguf"))[0]
    alone = tmp_path / shard.name
    shutil.copy(shard, alone)
    bad(alone, "00002-of-", "does not exist")


def test_a_list_alone_is_believed(copy: Callable[[str], Path]) -> None:
    """Others publish SHA256SUMS too, in other orders, with the mark for binary files."""
    artifact = copy("mlx")
    (artifact / "gemmaq.json").unlink()
    listed_anew(artifact)
    path = artifact / sums.NAME
    path.write_text("".join(sorted(path.read_text().replace("  ", " *").splitlines(keepends=True))))
    assert check(artifact) == []
    assert "no gemmaq.json" in run("verify", artifact).stdout
    (artifact / "config.json").write_text("{}")
    bad(artifact, "config.json is not what SHA256SUMS says")


def test_a_file_of_an_artifact_stands_for_all_of_it(copy: Callable[[str], Path]) -> None:
    artifact = copy("gguf")
    (artifact / "README.md").write_text("mine")
    file = next(artifact.glob("*.gguf"))
    assert check(file) == check(artifact) == ["README.md is not what SHA256SUMS says: it was changed"]


def test_a_tokenizer_that_cannot_be_read_is_found(copy: Callable[[str], Path], source: Path) -> None:
    artifact = copy("bf16")
    (artifact / "tokenizer.model").write_bytes(b"\xff" * 99)
    listed_anew(artifact)
    bad(artifact, "tokenizer.model")


@pytest.mark.parametrize("kind", ["nothing", "empty folder", "another file"])
def test_where_there_is_no_artifact_nothing_is_found(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    if kind == "empty folder":
        path.mkdir()
        run("verify", path, code=5)
    elif kind == "another file":
        path.write_text("text")
        assert "it is neither a model folder nor a GGUF file" in run("verify", path, code=8).stderr
        return
    else:
        run("verify", path, code=5)
    with pytest.raises(NotFoundError):
        check(path)


def test_an_interruption_waits_for_no_large_file(copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = copy("gguf")
    os.truncate(next(artifact.glob("*.gguf")), 1 << 40)  # takes minutes to hash, and no space

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gemmaq.verify.structure.open_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        examine(artifact)
