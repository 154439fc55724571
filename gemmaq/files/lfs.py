"""Pointers that Git LFS leaves in place of files that it has not fetched.

Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

from gemmaq.errors import InputError

MAX_BYTES = 1024
"""Bytes that a pointer has at most."""
_BEGINS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")


def refuse(content: bytes, path: object) -> None:
    """Refuse a pointer.

    Args:
        content: The file, or its first bytes.
        path: Its path, for the error.

    Raises:
        InputError: It is one.
    """
    if content.startswith(_BEGINS):
        raise InputError("is a Git LFS pointer, not the file itself: run git lfs pull in its folder", path=path)
