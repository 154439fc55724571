"""What the headers of an artifact say: that they can be read, belong together, and are those gemmaq.json tells of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gemmaq import containers
from gemmaq.artifact import provenance
from gemmaq.artifact.provenance import Provenance
from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import GemmaqError
from gemmaq.files import gguf_reader, safetensors_header
from gemmaq.files.names import is_mmproj
from gemmaq.files.span import FileSpan
from gemmaq.sources.open import open_source


@dataclass(frozen=True, slots=True)
class Array:
    """An array as a header has it: its type, its shape, and where it lies."""

    dtype: str
    shape: tuple[int, ...]
    span: FileSpan
    offset: int
    nbytes: int


def opened(place: Path) -> tuple[Checkpoint | None, list[str]]:
    """The model in a folder or a GGUF file, and what is wrong with it: headers, shards, tokenizer, projector."""
    try:
        model = open_source(str(place))
    except GemmaqError as error:
        return None, [error.message]
    problems = _projectors(place if place.is_dir() else place.parent, model) if model.format == "gguf" else []
    try:
        _ = model.tokenizer
    except GemmaqError as error:
        problems.append(error.message)
    return model, problems


def _projectors(folder: Path, model: Checkpoint) -> list[str]:
    found = sorted(path.name for path in folder.glob("*.gguf") if is_mmproj(path.name))
    if len(found) > 1:
        return [f"{len(found)} vision projectors, of which runtimes take any: {', '.join(found)}"]
    if found and not model.vision:
        return [next((note for note in model.notes if found[0] in note), f"{found[0]} is no vision projector")]
    return []


def arrays(folder: Path, container: str) -> dict[str, Array]:
    """All arrays of a folder's files by name.

    Raises:
        InputError: a header cannot be read.
    """
    return _HEADERS[container](folder)


def unlike(known: Provenance, found: Mapping[str, Array]) -> list[str]:
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


def _of_gguf(folder: Path) -> dict[str, Array]:
    files = [gguf_reader.parse(FileSpan.of(path)) for path in sorted(folder.glob("*.gguf"))]
    return {
        info.name: Array(info.type.name, info.shape, file.span, info.offset, info.nbytes)
        for file in files
        for info in file.tensors
    }


def _of_safetensors(folder: Path) -> dict[str, Array]:
    spans = [FileSpan.of(path) for path in sorted(folder.glob("*.safetensors"))]
    return {
        entry.name: Array(entry.dtype, entry.shape, span, entry.offset, entry.nbytes)
        for span in spans
        for entry in safetensors_header.parse(span)
    }


_HEADERS = {"gguf": _of_gguf, "mlx": _of_safetensors, "safetensors": _of_safetensors}


def _wanted(known: Provenance) -> dict[str, _Header]:
    """The arrays that must be there by gemmaq.json."""
    pieces = containers.find(known.container).FORMAT.pieces
    wanted: dict[str, _Header] = {}
    for tensor in known.tensors:
        encoding = ENCODINGS[tensor.encoding]
        if encoding.is_float or known.container == "gguf":
            wanted[tensor.name] = (encoding.label, tensor.shape)
            continue
        stem = tensor.name.removesuffix("weight")
        for number, piece in enumerate(pieces(encoding, tensor.shape[-1])):
            dtype = known.request.scales.upper() if number else piece.dtype
            wanted[stem + piece.suffix] = (dtype, (*tensor.shape[:-1], piece.columns))
        if known.container == "safetensors":
            wanted[f"{stem}weight_shape"] = ("I64", (len(tensor.shape),))
    return wanted
