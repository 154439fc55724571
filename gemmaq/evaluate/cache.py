"""Cache of the reference's last hidden states: its logits follow from them and its output head alone."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq import __version__
from gemmaq.checkpoint import Checkpoint
from gemmaq.files import caches

if TYPE_CHECKING:
    from gemmaq.encodings import F32
    from gemmaq.inference.documents import Tokens

LIMIT = 2 << 30
"""Maximum size of all entries together, in bytes."""
_DIGEST = 32


def default_folder() -> Path:
    """Folder of the entries."""
    return caches.folder("evaluate")


def key(checkpoint: Checkpoint, tokens: Tokens, device: str) -> str:
    """Name of the entry for a model and tokens; another one whenever files, tokens or software change."""
    import torch
    import transformers

    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in checkpoint.files]
    software = (
        __version__,
        torch.__version__,
        transformers.__version__,
        device,
        torch.backends.cpu.get_cpu_capability(),
    )
    identity = repr((software, checkpoint.config, files, tokens.shape)).encode()
    return sha256(identity + np.ascontiguousarray(tokens, "<i8").tobytes()).hexdigest()


def load(folder: Path, name: str, shape: tuple[int, ...]) -> F32 | None:
    """Read an entry; None if there is none, or a damaged one."""
    path = folder / f"{name}.npy"
    try:
        data = path.read_bytes()
        if sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
            return None
        states = np.load(io.BytesIO(data[:-_DIGEST]), allow_pickle=False)
        os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    return states if states.shape == shape and states.dtype == np.float32 else None


def store(folder: Path, name: str, array: F32) -> None:
    """Write an entry; the oldest ones make room for it. A folder that cannot be written is ignored."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    data = buffer.getbuffer()
    if len(data) + _DIGEST > LIMIT:
        return
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder, LIMIT - len(data) - _DIGEST)
        descriptor, part = tempfile.mkstemp(suffix=".partial", dir=folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.write(sha256(data).digest())
            os.replace(part, folder / f"{name}.npy")
        finally:
            with suppress(OSError):
                os.unlink(part)


def _make_room(folder: Path, limit: int) -> None:
    """Remove the least recently used entries until the rest takes at most `limit` bytes."""
    entries = sorted(_entries(folder), reverse=True)
    total = 0
    for _, size, path in entries:
        total += size
        if total > limit:
            with suppress(OSError):
                path.unlink()


def _entries(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Time of last use, size and path of every entry, and of partial files that killed runs left behind."""
    for path in folder.iterdir():
        if path.suffix in (".npy", ".partial"):
            with suppress(OSError):
                stat = path.stat()
                yield stat.st_mtime_ns, stat.st_size, path
