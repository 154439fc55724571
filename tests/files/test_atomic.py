"""Folders and files that appear whole or not at all, and what must not be replaced."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gemmaq.errors import OutputError
from gemmaq.files import sums
from gemmaq.files.atomic import check_output, free_space, staging, write_file, write_files


def recorded(folder: Path, *files: str) -> None:
    """A folder whose record lists these files, which are made if they are not there."""
    folder.mkdir(exist_ok=True)
    for name in (*files, "gemmaq.json"):
        (folder / name).touch()
    (folder / "SHA256SUMS").write_bytes(sums.text(dict.fromkeys((*files, "gemmaq.json"), "0" * 64)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with staging(tmp_path / "a/out", False) as stage:
        (stage / "model.gguf").write_text("x")
        assert not (tmp_path / "a/out").exists()
    assert names(tmp_path / "a") == ["out"] and names(tmp_path / "a/out") == ["model.gguf"]
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a/out").stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), staging(tmp_path / "out", False) as stage:
        (stage / "model.gguf").write_text("x")
        raise failure
    assert names(tmp_path) == []


@pytest.mark.parametrize("failed", [False, True])
def test_an_earlier_folder_is_replaced_at_the_end(tmp_path: Path, failed: bool) -> None:
    recorded(tmp_path / "out", "old.gguf")
    before = names(tmp_path / "out")
    try:
        with staging(tmp_path / "out", True) as stage:
            (stage / "new.gguf").touch()
            if failed:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == (before if failed else ["new.gguf"])


def test_what_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    recorded(tmp_path / "out", "old.gguf")
    with (
        pytest.raises(OutputError, match=r"holds thesis\.md, which gemmaq did not write"),
        staging(tmp_path / "out", True) as stage,
    ):
        (stage / "new.gguf").touch()
        (tmp_path / "out/thesis.md").touch()
    assert names(tmp_path) == ["out"] and "thesis.md" in names(tmp_path / "out")


def test_an_old_folder_that_cannot_be_removed_does_not_undo_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run removes it."""
    recorded(tmp_path / "out", "old.gguf")
    with monkeypatch.context() as patched:
        with staging(tmp_path / "out", True) as stage:
            (stage / "new.gguf").touch()
            patched.setattr("shutil.rmtree", lambda path, **_: None)
        left = names(tmp_path)
    assert names(tmp_path / "out") == ["new.gguf"] and len(left) == 2 and left[1].endswith(".old")
    recorded(tmp_path / "out", "new.gguf")
    with staging(tmp_path / "out", True):
        pass
    assert names(tmp_path) == ["out"]


def test_errors_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no space left") as error, staging(tmp_path / "out", False):
        raise OSError(errno.ENOSPC, "full")
    assert error.value.hint is not None and error.value.exit_code == 7
    with pytest.raises(OutputError, match="cannot be written: denied"), staging(tmp_path / "out", False):
        raise OSError(errno.EACCES, "denied")


def test_what_may_be_written_is_checked_before(tmp_path: Path) -> None:
    source = tmp_path / "source/model.safetensors"
    source.parent.mkdir()
    source.touch()
    check_output(tmp_path / "new/out", 1, inputs=[source], force=False)
    with pytest.raises(OutputError, match="exists"):
        check_output(source.parent, 1, inputs=[], force=False)
    with pytest.raises(OutputError, match=r"model\.safetensors, which gemmaq did not write"):
        check_output(source.parent, 1, inputs=[], force=True)
    recorded(source.parent, "model.safetensors")
    with pytest.raises(OutputError, match="which is read"):
        check_output(source.parent, 1, inputs=[source], force=True)
    check_output(source.parent, 1, inputs=[], force=True)
    with pytest.raises(OutputError, match="bytes free"):
        check_output(tmp_path / "out", 1 << 60, inputs=[], force=False)
    assert free_space(tmp_path / "a/b/c")[0] == tmp_path


def test_several_files_are_replaced_together(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    write_files(tmp_path, {"a": b"1", "b": b"2"})
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == {"a": b"1", "b": b"2"}
    with pytest.raises(OutputError):
        write_files(tmp_path, {"a": b"3", "no folder/b": b"4"})
    assert (tmp_path / "a").read_bytes() == b"1" and names(tmp_path) == ["a", "b"]


def test_single_files(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    write_file(path, b"one", False)
    with pytest.raises(OutputError, match="exists"):
        write_file(path, b"two", False)
    write_file(path, b"two", True)
    assert path.read_bytes() == b"two" and names(tmp_path) == ["imatrix.gguf"]
    with pytest.raises(OutputError, match="cannot be written"):
        write_file(tmp_path / "absent/file", b"x", False)
