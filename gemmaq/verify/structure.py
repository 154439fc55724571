"""What the headers of an artifact say: that they can be read, belong together, and are those gemmaq.json tells of."""

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


def opened(place: Path) -> tuple[Checkpoint | None, list[str]]:
    """The model in a folder or a GGUF file, and what is wrong with it: headers, shards, tokenizer, projector."""
    try:
        model = open_source(str(place))
    except GemmaqError as error:
        return None, [error.relative_to(place).message]
    problems = _projectors(place if place.is_dir() else place.parent, model) if model.format == "gguf" else []
    try:
        _ = model.tokenizer
    except GemmaqError as error:
        problems.append(error.relative_to(place).message)
    return model, problems


def _projectors(folder: Path, model: Checkpoint) -> list[str]:
    found = sorted(path.name for path in folder.glob("*.gguf") if is_mmproj(path.name))
    if len(found) > 1:
        return [f"{len(found)} vision projectors, of which runtimes take any: {', '.join(found)}"]
    if found and not model.vision:
        return [next((note for note in model.notes if found[0] in note), f"{found[0]} is no vision projector")]
    return []


def arrays(folder: Path, container: str) -> dict[str, StoredArray]:
    """All arrays of a folder's files by name.

    Raises:
        InputError: a header cannot be read.
    """
    return dict(containers.writer(container).arrays(folder))


def unlike(known: Provenance, found: Mapping[str, StoredArray]) -> list[str]:
    """Where headers and gemmaq.json differ."""
    wanted = _wanted(known)
    problems = []
    for name, header in wanted.items():
        if name not in found:
            problems.append(f"tensor {name} is missing")
        elif (there := (found[name].dtype, found[name].shape)) != header:
            problems.append(f"tensor {name} is {_spelled(there)}, {provenance.NAME} says {_spelled(header)}")
    return problems + [f"tensor {name} is not in {provenance.NAME}" for name in found if name not in wanted]


_Header = tuple[str, tuple[int, ...]]
"""Type and shape of an array."""


def _spelled(header: _Header) -> str:
    return f"{header[0]} {list(header[1])}"


def _wanted(known: Provenance) -> dict[str, _Header]:
    """The arrays that must be there by gemmaq.json."""
    target = containers.writer(known.container).FORMAT
    wanted: dict[str, _Header] = {}
    for tensor in known.tensors:
        encoding = ENCODINGS[tensor.encoding]
        pieces = target.pieces(encoding, tensor.shape[-1] if tensor.shape else 1)
        if len(pieces) == 1:
            wanted[tensor.name] = (pieces[0].dtype, tensor.shape)
        else:
            stem = tensor.name.removesuffix("weight")
            for number, piece in enumerate(pieces):
                dtype = known.request.scales.upper() if number else piece.dtype
                wanted[stem + piece.suffix] = (dtype, (*tensor.shape[:-1], piece.columns))
        for constant in target.constants(tensor.name, tensor.shape, encoding):
            wanted[constant.name] = (constant.dtype, constant.shape)
    return wanted
