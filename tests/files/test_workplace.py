"""Temporary folders beside an output: they go with their process, or with the next run."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from gemmaq.errors import OutputError
from gemmaq.files.workplace import claim, claimed, file_beside, folder_beside

HOLD = """
import sys
from pathlib import Path
from gemmaq.files.workplace import file_beside, folder_beside
output = Path(sys.argv[1])
with folder_beside(output) as part, file_beside(output) as file, folder_beside(output, "old") as old:
    (part / "weights").touch()
    file.write_text("half")
    if output.exists():
        output.rename(old / output.name)
    print("ready", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def holder(output: Path) -> subprocess.Popen[str]:
    """Another process that writes an output."""
    command = [sys.executable, "-c", HOLD, str(output)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_they_go_with_the_block(tmp_path: Path) -> None:
    output = tmp_path / "a/b/out"
    with folder_beside(output) as folder, file_beside(output) as file:
        (folder / "weights").touch()
        assert folder.parent == file.parent == output.parent
        mask = os.umask(0)
        os.umask(mask)
        assert file.stat().st_mode & 0o777 == 0o666 & ~mask
    assert names(tmp_path) == []
    with folder_beside(output) as folder:
        folder.rename(output)
    assert names(output.parent) == ["out"]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = holder(output)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(names(tmp_path)) == 3
    claim(output)
    assert names(tmp_path) == []


def test_what_was_being_replaced_is_put_back(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "model.gguf").touch()
    process = holder(output)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not output.exists()
    claim(output)
    assert names(tmp_path) == ["out"] and names(output) == ["model.gguf"]


def test_an_output_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    process = holder(tmp_path / "out")
    before = names(tmp_path)
    with pytest.raises(OutputError, match="is being written by another gemmaq") as error:
        claim(tmp_path / "out")
    assert error.value.exit_code == 7 and names(tmp_path) == before
    for other in ("out2", "ou", "out.gemmaq-", "other"):
        claim(tmp_path / other)
    process.communicate()
    with claimed(tmp_path / "out"), claimed(tmp_path / "out"):
        assert len(names(tmp_path)) == 2
    assert names(tmp_path) == []


def test_files_of_the_user_stay(tmp_path: Path) -> None:
    kept = ["out.final_v2.partial", "out.partial", "out.gemmaq-notes.md", "xout.gemmaq-abcdefgh.partial"]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / "out.gemmaq-abcdefgh.partial").symlink_to(tmp_path / kept[0])
    claim(tmp_path / "out")
    assert set(names(tmp_path)) == {*kept, "out.gemmaq-abcdefgh.partial"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM])
@pytest.mark.parametrize(
    ("beside", "module", "name"),
    [
        (folder_beside, os, "mkdir"),
        (folder_beside, tempfile, "mkdtemp"),
        (folder_beside, os, "rmdir"),
        (folder_beside, shutil, "rmtree"),
        (folder_beside, os, "close"),
        (file_beside, tempfile, "mkstemp"),
        (file_beside, os, "close"),
    ],
)
def test_an_interrupt_at_a_bad_time_leaves_nothing(
    beside: Callable[[Path], AbstractContextManager[Path]],
    module: Any,
    name: str,
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While something is made or removed, it waits. An alarm is an interrupt that is tried again."""
    usual = getattr(module, name)
    before = signal.signal(number, signal.default_int_handler)  # the command line's would keep it for later
    output = tmp_path / ("a/b/out" if beside is folder_beside else "out")

    def interrupted(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(number)
        return usual(*arguments, **options)

    monkeypatch.setattr(module, name, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt), beside(output):
            pass
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_folders_above_that_were_made_for_nothing_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = os.mkdir

    def full(path: str | Path, *arguments: Any, **options: Any) -> None:
        if Path(path).name == "b" and Path(path).parent.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        usual(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(OSError, match="No space"), folder_beside(tmp_path / "a/b/out"):
        pass
    assert list(tmp_path.iterdir()) == []
