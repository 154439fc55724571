"""What the system refuses where no command has words of its own for it, as errors with exit codes."""

from __future__ import annotations

import errno
import os
import re
import socket
from pathlib import Path

from gemmaq.errors import GemmaqError, InputError, NetworkError, NotFoundError, OutputError

_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG))
"""Refusals that only concern what is written."""
_TOO_MANY = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN))
"""Refusals of more files, memory or processes."""
_LEAST = 1 << 30
"""Bytes of address space without which Python, numpy and LLVM are not even loaded."""
_OF_MEMORY = re.compile(r"can't start new thread|can't allocate memory|bad_alloc|out of memory|Cannot allocate memory")
"""Libraries say so in errors of their own classes."""


def check_room() -> None:
    """Refuse to begin under a memory limit with which libraries would end the process without a word.

    Raises:
        OutputError: The limit is that low.
    """
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    except (ImportError, OSError, ValueError):
        return
    if limit != resource.RLIM_INFINITY and limit < _LEAST:
        raise _of_memory(f"the limit is {limit >> 20} MiB, gemmaq needs at least {_LEAST >> 20} to begin")


def of_system(failure: Exception) -> GemmaqError | None:
    """The error to show for a refusal of the system; None for any other failure.

    A working folder that was deleted comes first: then any relative path fails in some way.
    """
    if isinstance(failure, MemoryError):
        return _of_memory(str(failure))
    if isinstance(failure, (RuntimeError, SystemError, ImportError)) and _OF_MEMORY.search(str(failure)):
        return _of_memory(str(failure))
    if not isinstance(failure, OSError):
        return None
    if _is_gone():
        return NotFoundError("the working folder does not exist any more", "change to one that does")
    if isinstance(failure, (ConnectionError, TimeoutError, socket.gaierror)):
        return NetworkError(f"a connection failed: {failure.strerror or failure}", "check the network, and try again")
    reason = failure.strerror or str(failure) or type(failure).__name__
    where = failure.filename if isinstance(failure.filename, (str, bytes)) else None
    path = os.fsdecode(where) if where is not None else None
    if failure.errno in _NO_ROOM:
        return OutputError(f"cannot be written: {reason}" if path else f"writing failed: {reason}", path=path)
    if failure.errno in _TOO_MANY:
        return OutputError(f"the system refuses more: {reason}", "raise the limits (ulimit), or close other programs")
    if failure.errno == errno.ENOENT:
        return NotFoundError("does not exist" if path else f"a file is missing: {reason}", path=path)
    return InputError(f"cannot be used: {reason}" if path else f"the system refuses: {reason}", path=path)


def _of_memory(words: str) -> OutputError:
    """The error for missing memory, with the words of who missed it where they are short."""
    detail = f": {words}" if words and "\n" not in words and len(words) < 200 else ""
    return OutputError(f"there is not enough memory{detail}", "raise the limit (ulimit -v), or close other programs")


def _is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def memory() -> tuple[int | None, int | None]:
    """Bytes of main memory, and of what of it is free for programs; None where the system does not say."""
    lines = dict(re.findall(r"^(\w+):\s+(\d+) kB", read("/proc/meminfo"), re.MULTILINE))
    if "MemTotal" in lines:
        return int(lines["MemTotal"]) << 10, int(lines.get("MemAvailable", 0)) << 10
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    except (ValueError, OSError):
        return None, None


def read(path: str) -> str:
    """The text of one of the kernel's files, empty where there is none."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
