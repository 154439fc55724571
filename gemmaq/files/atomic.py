"""Atomic output: a file or folder appears complete under its final name, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gemmaq.errors import OutputError
from gemmaq.files import replacing
from gemmaq.files.workplace import claim, file_beside, folder_beside, umask

Check = Callable[[Path], None]
"""Refuses a folder that is not to be replaced."""


def check_output(
    folder: Path, size: int, *, inputs: Iterable[Path], force: bool, check: Check = replacing.check
) -> None:
    """Check an output folder before any work is done for it.

    Args:
        folder: Folder to create.
        size: Bytes that it will take.
        inputs: Files that will be read.
        force: Whether an earlier artifact may be replaced.
        check: Says which may.

    Raises:
        OutputError: It exists and is no artifact that may be replaced, holds an input, or does not fit on the disk.
    """
    if os.path.lexists(folder):
        if not force:
            raise OutputError("exists", "choose another -o, or replace it with --force", path=folder)
        replacing.check_apart(folder, inputs)
        check(folder)
    parent, free = free_space(folder)
    if size > free:
        raise OutputError(f"has {free:,} bytes free, {size:,} are needed", path=parent)


def free_space(folder: Path) -> tuple[Path, int]:
    """The nearest parent of a folder that exists, and the bytes free there."""
    parent = next(p for p in (folder.parent.absolute(), *folder.absolute().parents) if p.exists())
    return parent, shutil.disk_usage(parent).free


def write_file(path: Path, data: bytes, force: bool) -> None:
    """Write a file completely or not at all.

    Raises:
        OutputError: It exists and may not be replaced, or cannot be written.
    """
    if os.path.lexists(path) and not force:
        raise OutputError("exists", "choose another name, or replace it with --force", path=path)
    claim(path)
    try:
        with file_beside(path) as part:
            part.write_bytes(data)
            part.replace(path)
    except OSError as error:
        raise _output_error(error, path) from error


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replace files of a folder: all are written completely before the first takes its name.

    Raises:
        OutputError: One cannot be written.
    """
    for name in contents:
        claim(folder / name)
    try:
        with ExitStack() as stack:
            parts = {name: stack.enter_context(file_beside(folder / name)) for name in contents}
            for name, part in parts.items():
                with part.open("wb") as file:
                    file.write(contents[name])
                    file.flush()
                    os.fsync(file.fileno())
            for name, part in parts.items():
                part.replace(folder / name)
        _sync_folder(folder)
    except OSError as error:
        raise _output_error(error, folder) from error


@contextmanager
def staging(folder: Path, force: bool, check: Check = replacing.check) -> Iterator[Path]:
    """A folder to write into, renamed to `folder` at the end or removed on any failure.

    Args:
        folder: Folder to create.
        force: Whether an earlier one may be replaced.
        check: Refuses an earlier one that is not to be replaced after all.

    Raises:
        OutputError: Another process is writing it, it is no artifact that may be replaced, or it cannot be written.
    """
    folder = Path(os.path.abspath(folder))
    claim(folder)
    try:
        with folder_beside(folder) as stage:
            yield stage
            stage.chmod(0o777 & ~umask())
            if force and os.path.lexists(folder):
                check(folder)
                _swap(stage, folder)
            else:
                stage.rename(folder)
    except OSError as error:
        raise _output_error(error, folder) from error
    _sync_folder(folder.parent)


def _swap(stage: Path, folder: Path) -> None:
    """Replace a folder by the new one. If the process dies between the renames, the next run puts the old one back."""
    with folder_beside(folder, "old") as old:
        backup = old / folder.name
        try:
            folder.rename(backup)
            stage.rename(folder)
        except BaseException:
            if backup.exists() and not folder.exists():
                backup.rename(folder)
            raise


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder outlast a power cut, as far as its file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _output_error(error: OSError, folder: Path) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"no space left while writing {folder}", "nothing was kept; free space and run it again")
    return OutputError(f"cannot be written: {error.strerror or error}", path=folder)
