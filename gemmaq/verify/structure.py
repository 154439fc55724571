"""Headers of an artifact: they can be read, fit together, and hold the arrays that gemmaq.json lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gemmaq import containers
from gemmaq.artifact import provenance
from gemmaq.artifact.provenance import Made, Provenance
from gemmaq.checkpoint import Checkpoint
from gemmaq.containers.layout import StoredArray
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import GemmaqError
from gemmaq.files.names import is_first, model_in, models_among
from gemmaq.models import families
from gemmaq.planning.format import Stacking, array_name, pieces_of
from gemmaq.sources.companions import ALL, DRAFTER, PROJECTOR
from gemmaq.sources.open import open_source

_Header = tuple[str, tuple[int, ...]]
"""Dtype and shape of an array."""


def open_model(path: Path, base: Path | None = None) -> tuple[Checkpoint | None, list[str]]:
    """Open the model in a folder or a GGUF file, with what belongs to it of the files beside it.

    Args:
        path: The folder or file.
        base: Folder from where problems spell its files, None for `path`.

    Returns:
        The model, None if it cannot be opened; problems of headers, shards, tokenizer, mmproj file and drafter.
    """
    base = path if base is None else base
    try:
        model = open_source(str(path), ALL)
    except GemmaqError as error:
        return None, [error.relative_to(base).message]
    problems = _problems_beside(path if path.is_dir() else path.parent, model)
    if model.towers_error is not None:
        problems.append(model.towers_error.relative_to(base).message)
    try:
        model.check_tokenizer(copied=True)
    except GemmaqError as error:
        problems.append(error.relative_to(base).message)
    return model, problems


def _problems_beside(folder: Path, model: Checkpoint) -> list[str]:
    """What is wrong with the mmproj files and drafters in the folder of a GGUF model, unless it holds others, too."""
    files = sorted(path.name for path in folder.glob("*.gguf") if is_first(path.name))
    models = models_among(files)
    if model.format != "gguf" or len({model_in(name)[0] for name in models}) > 1:
        return []
    problems = []
    for kind in (PROJECTOR, DRAFTER):
        names = [name for name in files if kind.is_one(name) and name not in models]
        if len(names) > 1:
            problems.append(f"{len(names)} {kind.what}s, and a runtime may load any of them: {', '.join(names)}")
        else:
            problems += [note for note in model.notes if note.startswith(tuple(f"{name} is passed" for name in names))]
    return problems


def arrays(folder: Path, record: Provenance) -> dict[str, StoredArray]:
    """All arrays in the files of a model on record by name, in its folder.

    Raises:
        InputError: a header cannot be read.
    """
    return dict(containers.writer(record.container).arrays([folder / file.path for file in record.files]))


def header_problems(record: Provenance, stored: Mapping[str, StoredArray]) -> list[str]:
    """Differences between the headers and gemmaq.json."""
    headers = _headers(record)
    problems = []
    for name, header in headers.items():
        if name not in stored:
            problems.append(f"tensor {name} is missing")
        elif (actual := (stored[name].dtype, stored[name].shape)) != header:
            problems.append(f"tensor {name} is {_spelled(actual)}, {provenance.NAME} says {_spelled(header)}")
    return problems + [f"tensor {name} is not in {provenance.NAME}" for name in stored if name not in headers]


def _spelled(header: _Header) -> str:
    return f"{header[0]} {list(header[1])}"


def _headers(record: Provenance) -> dict[str, _Header]:
    """Array name -> dtype and shape, as gemmaq.json has it."""
    target = containers.writer(record.container).FORMAT
    headers: dict[str, _Header] = {}
    for tensor in record.tensors:
        encoding = ENCODINGS[tensor.encoding]
        pieces = pieces_of(target, encoding, tensor.shape[-1] if tensor.shape else 1, record.request.scales)
        parts = [] if target.gguf_names else _slices(tensor, target.experts(encoding))
        for name, shape in parts or [(tensor.name, tensor.shape)]:
            for piece in pieces:
                columns = shape if len(pieces) == 1 else (*shape[:-1], piece.columns)
                headers[array_name(name, piece, len(pieces))] = (piece.dtype, columns)
            for constant in target.constants(name, shape, encoding, 1):
                headers[constant.name] = (constant.dtype, constant.shape)
    return headers


def _slices(tensor: Made, stacking: Stacking) -> list[tuple[str, tuple[int, ...]]]:
    """Name and shape of the tensors that a folder has for a stack of matrices; none for what is stored whole."""
    per_expert = None if stacking is Stacking.WHOLE else stacking is Stacking.SINGLE
    return [(part.name, part.shape) for part in families.slices(tensor.name, tensor.shape, per_expert=per_expert)]
