"""The reference's last activations, kept for the next time: its logits follow from them and its last matrix alone."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gemmaq import __version__
from gemmaq.checkpoint import Checkpoint

if TYPE_CHECKING:
    from gemmaq.encodings import F32
    from gemmaq.inference.documents import Tokens

LIMIT = 2 << 30
"""Bytes of all entries together."""
_DIGEST = 32


def folder() -> Path:
    """Where entries are: under $GEMMAQ_CACHE, or where the platform has its caches."""
    named = os.environ.get("GEMMAQ_CACHE")
    if named:
        return Path(named) / "evaluate"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/gemmaq/evaluate"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gemmaq/evaluate"


def key(checkpoint: Checkpoint, tokens: Tokens, device: str) -> str:
    """A name for what a model makes of tokens: another whenever its files, the tokens or the software change."""
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
    said = repr((software, checkpoint.config, files, tokens.shape)).encode()
    return sha256(said + np.ascontiguousarray(tokens, "<i8").tobytes()).hexdigest()


def load(where: Path, name: str, shape: tuple[int, ...]) -> F32 | None:
    """An entry, None if there is none that is whole."""
    path = where / f"{name}.npy"
    try:
        data = path.read_bytes()
        if sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
            return None
        found = np.load(io.BytesIO(data[:-_DIGEST]), allow_pickle=False)
        os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float32 else None


def store(where: Path, name: str, array: F32) -> None:
    """Keep an entry; the oldest go where room is short. A folder that cannot be written is no matter."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    data = buffer.getbuffer()
    if len(data) + _DIGEST > LIMIT:
        return
    with suppress(OSError):
        where.mkdir(parents=True, exist_ok=True)
        _make_room(where, LIMIT - len(data) - _DIGEST)
        descriptor, part = tempfile.mkstemp(suffix=".partial", dir=where)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.write(sha256(data).digest())
            os.replace(part, where / f"{name}.npy")
        finally:
            with suppress(OSError):
                os.unlink(part)


def _make_room(where: Path, limit: int) -> None:
    """Remove entries, those not used for longest first, until the rest takes at most `limit` bytes."""
    entries = sorted(_entries(where), reverse=True)
    taken = 0
    for _, size, path in entries:
        taken += size
        if taken > limit:
            with suppress(OSError):
                path.unlink()


def _entries(where: Path) -> Iterator[tuple[int, int, Path]]:
    """Time of last use, bytes and path of every entry, and of what killed runs left."""
    for path in where.iterdir():
        if path.suffix in (".npy", ".partial"):
            with suppress(OSError):
                stat = path.stat()
                yield stat.st_mtime_ns, stat.st_size, path
