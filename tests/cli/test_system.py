"""What the system refuses: a clear message, and an exit code of ours."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gemmaq.cli import inspect as command
from gemmaq.cli.system import of_system
from inprocess import run

MODEL = ["estimate-vram", "270m", "--gpu", "4090", "-q"]


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/a/config.json"), 3, "/a/config.json cannot be used"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", b"/a/b"), 3, "/a/b cannot be used: Is a directory"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a"), 5, "/a does not exist"),
        (OSError(errno.ENOSPC, "No space left on device"), 7, "writing failed: No space left on device"),
        (OSError(errno.EROFS, "Read-only file system", "/a"), 7, "/a cannot be written: Read-only file system"),
        (OSError(errno.EMFILE, "Too many open files", "/a"), 7, "Too many open files"),
        (OSError(errno.EIO, "Input/output error"), 3, "the system refuses: Input/output error"),
        (OSError("odd"), 3, "odd"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), 6, "Connection reset by peer"),
        (MemoryError(), 7, "there is not enough memory"),
        (MemoryError("Unable to allocate 2 TiB"), 7, "there is not enough memory: Unable to allocate 2 TiB"),
    ],
)
def test_every_refusal_has_words_and_a_code(
    failure: Exception, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = of_system(failure)
    assert error is not None and error.exit_code == code and words in error.message

    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(command, "Output", fail)
    assert words in run("inspect", "sample:270m", code=code).stderr


def test_errors_of_libraries_about_memory() -> None:
    for words in ("can't start new thread", "DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"):
        error = of_system(RuntimeError(words))
        assert error is not None and error.exit_code == 7 and words in error.message
    assert of_system(RuntimeError("something else")) is None and of_system(KeyError("out of memory")) is None


def test_a_deleted_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    run(*MODEL)
    for arguments in (["inspect", "there"], ["convert", "there", "-o", "out"]):
        assert run(*arguments, code=5).stderr.startswith("error: ")
    error = of_system(FileNotFoundError(errno.ENOENT, "no", "x"))
    assert error is not None and "the working folder does not exist" in error.message


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
@pytest.mark.parametrize("limit", [200, 900])
def test_a_limit_of_memory_is_told(limit: int) -> None:
    """Python itself needs some 50 MB; below what numpy and LLVM need, they end a process by SIGABRT."""
    words = f"ulimit -v {limit << 10}; exec '{sys.executable}' -m gemmaq {' '.join(MODEL)}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 7, done.stderr
    assert done.stderr.startswith("error: there is not enough memory: the limit is") and "ulimit" in done.stderr
