"""Temporary folders and files beside an output, locked while their process lives, so that a later run can clear them.

A process that is killed leaves them behind. The lock goes with the process, whatever ended it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gemmaq.errors import OutputError

try:
    import fcntl
except ImportError:  # on Windows nothing is known of other processes, and what they left stays
    fcntl = None  # type: ignore[assignment]

_SUFFIXES = ("partial", "old")
_INTERRUPTS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM") if hasattr(signal, name)
)
"""The alarm too: by it the command line tries an interrupt again that came at a bad time."""
_held: set[Path] = set()
"""Folders of this process."""


@contextmanager
def folder_beside(output: Path, suffix: str = "partial") -> Iterator[Path]:
    """A new empty folder beside an output, removed at the end unless it has been renamed.

    Folders above the output are made, and removed if nothing lies in them at the end.

    Args:
        output: a file or folder to write.
        suffix: `partial` for what is written, `old` for what it replaces.

    Raises:
        OSError: it cannot be made.
    """
    output = Path(os.path.abspath(output))
    above = [parent for parent in output.parents if not parent.exists()]
    path = lock = None
    try:
        with _undisturbed():
            output.parent.mkdir(parents=True, exist_ok=True)
            path, lock = _locked(
                lambda: Path(tempfile.mkdtemp(prefix=_prefix(output), suffix=f".{suffix}", dir=output.parent))
            )
            _held.add(path)
        yield path
    finally:
        with _undisturbed():
            if path is not None and lock is not None:
                _held.discard(path)
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
            for parent in above:
                with suppress(OSError):
                    parent.rmdir()


@contextmanager
def claimed(output: Path) -> Iterator[None]:
    """Keep other processes from an output; see `claim`.

    Raises:
        OutputError: another process is writing it, or no folder can be made beside it.
    """
    claim(output)
    with ExitStack() as stack:
        try:
            stack.enter_context(folder_beside(output))
        except OSError as error:
            raise OutputError(f"cannot be written: {error.strerror or error}", path=output) from error
        yield


@contextmanager
def file_beside(output: Path) -> Iterator[Path]:
    """A new empty file beside an output, removed at the end unless it has been renamed.

    Raises:
        OSError: it cannot be made.
    """

    def make() -> Path:
        descriptor, name = tempfile.mkstemp(prefix=_prefix(output), suffix=".partial", dir=output.parent)
        os.fchmod(descriptor, 0o666 & ~umask())
        os.close(descriptor)
        return Path(name)

    path = lock = None
    try:
        with _undisturbed():
            path, lock = _locked(make)
        yield path
    finally:
        with _undisturbed():
            if path is not None and lock is not None:
                path.unlink(missing_ok=True)
                os.close(lock)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let interrupts wait until the end of the block: one between making and removing would leave something behind."""
    if threading.current_thread() is not threading.main_thread():  # interrupts are for the main thread
        yield
        return
    came: list[int] = []
    usual = {number: signal.getsignal(number) for number in _INTERRUPTS}
    usual = {number: handler for number, handler in usual.items() if callable(handler)}
    try:
        for number in usual:
            signal.signal(number, lambda came_now, _: came.append(came_now))
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        for number in came:
            os.kill(os.getpid(), number)


def claim(output: Path) -> None:
    """Clear what dead processes left beside an output, and refuse an output that another process is writing.

    A folder that was being replaced when the process died is put back.

    Raises:
        OutputError: another process is writing it.
    """
    output = Path(os.path.abspath(output))
    for path in _left(output):
        lock = _lock(path)
        if lock is None:
            raise OutputError(
                "is being written by another gemmaq", f"wait for it, or choose another name ({path.name})", path=output
            )
        try:
            _clear(path, output)
        finally:
            os.close(lock)


def umask() -> int:
    """Permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _left(output: Path) -> list[Path]:
    """Folders and files beside an output that are not of this process."""
    if fcntl is None:
        return []
    pattern = re.compile(rf"{re.escape(_prefix(output))}\w+\.({'|'.join(_SUFFIXES)})")
    try:
        names = [name for name in os.listdir(output.parent) if pattern.fullmatch(name)]
    except OSError:
        return []
    return [path for path in map(output.parent.joinpath, sorted(names)) if path not in _held and not path.is_symlink()]


def _clear(path: Path, output: Path) -> None:
    """Remove what a dead process left, or put back what it had moved away."""
    with suppress(OSError):
        backup = path / output.name
        if path.suffix == ".old" and backup.exists() and not os.path.lexists(output):
            backup.rename(output)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _prefix(output: Path) -> str:
    return f"{output.name}.gemmaq-"


def _locked(make: Callable[[], Path]) -> tuple[Path, int]:
    """Make a file or folder, and lock it; anew if another process cleared it in between."""
    while True:
        path = make()
        if fcntl is None:
            return path, os.open(os.devnull, os.O_RDONLY)
        lock = _lock(path)
        if lock is not None:
            return path, lock


def _lock(path: Path) -> int | None:
    """Lock what lies at a path, without waiting; None if a process has it, or if it is gone.

    A file system without locks counts as free: nobody else can have it locked.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there, own = os.stat(path), os.fstat(descriptor)
        if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
            return descriptor
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            return descriptor
    os.close(descriptor)
    return None
