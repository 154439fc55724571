"""Atomic output: a file or folder appears complete under its final name, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from gemmaq.errors import OutputError

_OURS = {".gguf", ".safetensors", ".json", ".jinja", ".model", ".md", ".metadata", ".svg"}
"""Endings of the files of artifacts."""
_WITHOUT_ENDING = {"LICENSE", "Modelfile", "SHA256SUMS", "params"}
"""Files of artifacts without an ending."""


def check_output(folder: Path, size: int, *, inputs: Iterable[Path], force: bool) -> None:
    """Check an output folder before any work is done for it.

    Args:
        folder: Folder to create.
        size: Bytes that it will take.
        inputs: Files that will be read.
        force: Whether an earlier artifact may be replaced.

    Raises:
        OutputError: It exists, holds an input, or does not fit on the disk.
    """
    if os.path.lexists(folder):
        if not force:
            raise OutputError("exists", "choose another -o, or replace it with --force", path=folder)
        _check_replaceable(folder)
    name = next((path.name for path in inputs if folder.resolve() in path.resolve().parents), None)
    if name is not None:
        raise OutputError(f"holds {name}, which is read", "choose another -o", path=folder)
    parent, free = free_space(folder)
    if size > free:
        raise OutputError(f"has {free:,} bytes free, {size:,} are needed", path=parent)


def free_space(folder: Path) -> tuple[Path, int]:
    """The nearest parent of a folder that exists, and the bytes free there."""
    parent = next(p for p in (folder.parent.absolute(), *folder.absolute().parents) if p.exists())
    return parent, shutil.disk_usage(parent).free


def _check_replaceable(folder: Path) -> None:
    """Let --force replace an artifact, but no folder with other files in it."""
    if folder.is_symlink() or not folder.is_dir():
        raise OutputError("is not a folder", "choose another -o", path=folder)
    if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise OutputError("is the folder you are in", "choose another -o", path=folder)
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix not in _OURS and path.name not in _WITHOUT_ENDING:
            raise OutputError(
                f"holds {path.relative_to(folder)}, which gemmaq did not write", "choose another -o", path=folder
            )


def write_file(path: Path, data: bytes, force: bool) -> None:
    """Write a file completely or not at all.

    Raises:
        OutputError: It exists and may not be replaced, or cannot be written.
    """
    if os.path.lexists(path) and not force:
        raise OutputError("exists", "choose another name, or replace it with --force", path=path)
    part = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise _output_error(error, path) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replace files of a folder: all are written completely before the first takes its name.

    Raises:
        OutputError: One cannot be written.
    """
    parts = {name: folder / f".{name}.{os.getpid()}.partial" for name in contents}
    try:
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
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)


@contextmanager
def staging(folder: Path, force: bool) -> Iterator[Path]:
    """A folder to write into, renamed to `folder` at the end or removed on any failure."""
    folder, stage = Path(os.path.abspath(folder)), None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
        yield stage
        stage.chmod(0o777 & ~_umask())
        if force and folder.exists():
            _swap(stage, folder)
        else:
            stage.rename(folder)
        stage = None
        _sync_folder(folder.parent)
    except OSError as error:
        raise _output_error(error, folder) from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def _swap(stage: Path, folder: Path) -> None:
    """Replace a folder by the new one. Whatever happens meanwhile, one of the two is there."""
    old = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".old", dir=folder.parent))
    backup = old / folder.name
    try:
        folder.rename(backup)
        stage.rename(folder)
    except BaseException:
        if backup.exists() and not folder.exists():
            backup.rename(folder)
        old.rmdir()
        raise
    shutil.rmtree(old)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _output_error(error: OSError, folder: Path) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"no space left while writing {folder}", "nothing was kept; free space and run it again")
    return OutputError(f"cannot be written: {error.strerror or error}", path=folder)
