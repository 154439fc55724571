"""Headers of an artifact: they can be read, fit together, and hold the arrays that gemmaq.json lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gemmaq import containers
from gemmaq.artifact import provenance
from gemmaq.artifact.provenance import Provenance
from gemmaq.checkpoint import Checkpoint
from gemmaq.containers.layout import StoredArray
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import GemmaqError
from gemmaq.files.names import is_mmproj
from gemmaq.sources.open import open_source

_Header = tuple[str, tuple[int, ...]]
"""Dtype and shape of an array."""


def open_model(path: Path) -> tuple[Checkpoint | None, list[str]]:
    """Open the model in a folder or a GGUF file; problems of its headers, shards, tokenizer and vision projector."""
    try:
        model = open_source(str(path))
    except GemmaqError as error:
        return None, [error.relative_to(path).message]
    problems = _projector_problems(path if path.is_dir() else path.parent, model) if model.format == "gguf" else []
    try:
        _ = model.tokenizer
    except GemmaqError as error:
        problems.append(error.relative_to(path).message)
    return model, problems


def _projector_problems(folder: Path, model: Checkpoint) -> list[str]:
    names = sorted(path.name for path in folder.glob("*.gguf") if is_mmproj(path.name))
    if len(names) > 1:
        return [f"{len(names)} vision projectors, and a runtime may load any of them: {', '.join(names)}"]
    if names and not model.vision:
        return [next((note for note in model.notes if names[0] in note), f"{names[0]} is not a vision projector")]
    return []


def arrays(folder: Path, container: str) -> dict[str, StoredArray]:
    """All arrays in a folder's files by name.

    Raises:
        InputError: a header cannot be read.
    """
    return dict(containers.writer(container).arrays(folder))


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
        pieces = target.pieces(encoding, tensor.shape[-1] if tensor.shape else 1)
        if len(pieces) == 1:
            headers[tensor.name] = (pieces[0].dtype, tensor.shape)
        else:
            stem = tensor.name.removesuffix("weight")
            for number, piece in enumerate(pieces):
                dtype = record.request.scales.upper() if number else piece.dtype
                headers[stem + piece.suffix] = (dtype, (*tensor.shape[:-1], piece.columns))
        for constant in target.constants(tensor.name, tensor.shape, encoding):
            headers[constant.name] = (constant.dtype, constant.shape)
    return headers
