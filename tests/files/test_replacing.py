"""What an output may replace: artifacts that are on record file by file, and never what is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gemmaq.errors import OutputError
from gemmaq.files import replacing, sums


def recorded(folder: Path, *files: str) -> Path:
    """An artifact with these files."""
    for name in (*files, "gemmaq.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / sums.NAME).write_bytes(sums.text(dict.fromkeys((*files, "gemmaq.json"), "0" * 64)))
    return folder


def test_artifacts_are_replaced_alone_and_beside_one_another(tmp_path: Path) -> None:
    replacing.check(recorded(tmp_path / "one", "model.gguf", "README.md", "a\\b\n.md"))
    recorded(tmp_path / "all/gguf", "model.gguf")
    recorded(tmp_path / "all/mlx/q4_0", "model.safetensors", "chat/one.jinja")
    (tmp_path / "all/empty").mkdir()
    replacing.check(tmp_path / "all")


def model(folder: Path) -> None:
    """A folder of the user's own, with files that artifacts have, too."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (folder / name).touch()


def without_sums(folder: Path) -> None:
    (recorded(folder, "model.gguf") / sums.NAME).unlink()


def without_record(folder: Path) -> None:
    (recorded(folder, "model.gguf") / "gemmaq.json").unlink()


def sums_without_record(folder: Path) -> None:
    recorded(folder, "model.gguf")
    (folder / sums.NAME).write_bytes(sums.text({"model.gguf": "0" * 64}))


def broken_sums(folder: Path) -> None:
    (recorded(folder, "model.gguf") / sums.NAME).write_bytes(b"nonsense\n")


def beside_artifacts(folder: Path) -> None:
    recorded(folder / "gguf", "model.gguf")
    (folder / "notes.md").touch()


def within_a_folder_of_an_artifact(folder: Path) -> None:
    recorded(folder, "model.gguf", "chat/one.jinja")
    (folder / "chat/two.jinja").touch()


def hidden(folder: Path) -> None:
    (recorded(folder, "model.gguf") / ".git").mkdir()
    (folder / ".git/HEAD").touch()


def link_to_a_folder(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (recorded(folder, "model.gguf") / "data").symlink_to(folder.parent / "elsewhere")


def listed_above(folder: Path) -> None:
    """A list names files of another folder."""
    recorded(folder / "a", "../b/thesis.md")


def pipe(folder: Path) -> None:
    os.mkfifo(recorded(folder, "model.gguf") / "pipe")


@pytest.mark.parametrize(
    ("make", "first"),
    [
        (model, "README.md"),
        (without_sums, "gemmaq.json"),
        (without_record, "SHA256SUMS"),
        (sums_without_record, "SHA256SUMS"),
        (broken_sums, "SHA256SUMS"),
        (beside_artifacts, "notes.md"),
        (within_a_folder_of_an_artifact, "chat/two.jinja"),
        (hidden, ".git/HEAD"),
        (link_to_a_folder, "data"),
        (listed_above, "b/thesis.md"),
        (pipe, "pipe"),
    ],
)
def test_the_first_file_that_is_on_no_record_is_named(make, first, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    make(folder)
    with pytest.raises(OutputError, match=f"holds {first}, which gemmaq did not write") as error:
        replacing.check(folder)
    assert error.value.exit_code == 7 and "move it away" in (error.value.hint or "")


def test_links_files_and_the_working_folder_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = recorded(tmp_path / "artifact", "model.gguf")
    (tmp_path / "link").symlink_to(artifact)
    for path in (tmp_path / "link", artifact / "model.gguf"):
        with pytest.raises(OutputError, match="is not a folder"):
            replacing.check(path)
    monkeypatch.chdir(artifact)
    with pytest.raises(OutputError, match="the folder you are in"):
        replacing.check(artifact)


def test_a_working_folder_that_was_deleted_matters_to_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    replacing.check(recorded(tmp_path / "artifact", "model.gguf"))


def test_inputs_are_found_by_every_path(tmp_path: Path) -> None:
    """A source of links, which lead through each other's folders."""
    for name in ("blobs", "hop", "snapshot", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "blobs/model").touch()
    (tmp_path / "hop/model").symlink_to(tmp_path / "blobs/model")
    (tmp_path / "snapshot/model.safetensors").symlink_to("../hop/model")
    (tmp_path / "alias").symlink_to(tmp_path / "snapshot")
    for path in ("snapshot/model.safetensors", "alias/model.safetensors"):
        for folder in ("blobs", "hop", "snapshot", "alias", "."):
            with pytest.raises(OutputError, match=r"which is read"):
                replacing.check_apart(tmp_path / folder, [tmp_path / path])
        replacing.check_apart(tmp_path / "other", [tmp_path / path])
        replacing.check_apart(tmp_path / "snapshot/gguf", [tmp_path / path])


def test_what_was_pulled_is_replaced_by_what_is_pulled_alone(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name, lines in {"config.json": 4, "sub/model.safetensors": 4, "theirs.json": 3}.items():
        record = folder / replacing.DOWNLOADS / f"{name}.metadata"
        for path in (folder / name, record):
            path.parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        record.write_text("line\n" * lines)
    with pytest.raises(OutputError, match=r"holds theirs\.json"):
        replacing.check_download(folder)
    (folder / "theirs.json").unlink()
    (folder / replacing.DOWNLOADS / "theirs.json.metadata").unlink()
    replacing.check_download(folder)
    replacing.check_download(recorded(tmp_path / "artifact", "model.gguf"))
    with pytest.raises(OutputError, match=r"which gemmaq did not write"):
        replacing.check(folder)
