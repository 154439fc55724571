"""Bytes of an artifact's files outside its tensors: sizes, headers, what fills gaps, and files without tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from gemmaq.containers.layout import OutputFile, StoredArray
from gemmaq.errors import InputError


def difference(path: Path, file: OutputFile, constants: Mapping[str, StoredArray]) -> str | None:
    """The first difference of a file from what gemmaq writes, a sentence; None if there is none.

    Args:
        path: the file.
        file: what gemmaq writes; its tensors are not compared.
        constants: arrays whose content is known from the plan, by name, with their places in the artifact.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            if size != file.size:
                return f"{path.name} has {size:,} bytes, gemmaq writes {file.size:,}"
            for offset, wanted in ((0, file.head), *file.fixed):
                stream.seek(offset)
                found = stream.read(len(wanted))
                if found != wanted:
                    at = offset + next(at for at, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b)
                    return f"{path.name}: {_part(path, file, at, constants)} not what gemmaq writes"
            for name, start, end in _gaps(file):
                stream.seek(start)
                if any(stream.read(end - start)):
                    return f"{path.name}: the bytes behind tensor {name} are not zero"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from error
    return None


def _part(path: Path, file: OutputFile, at: int, constants: Mapping[str, StoredArray]) -> str:
    """What a byte outside the tensors belongs to, as subject of a sentence."""
    for name, array in constants.items():
        if array.span.paths == (path,) and array.offset <= at < array.offset + array.nbytes:
            return f"tensor {name} is"
    return "its header is" if file.placements else "it is"


def _gaps(file: OutputFile) -> Iterator[tuple[str, int, int]]:
    """Bytes that fill up what lies behind a tensor: its name, begin and end."""
    places = [
        (*place, placement.tensor.name)
        for placement in file.placements
        for piece in placement.pieces
        for place in piece.places(0, placement.tensor.source.rows)
    ]
    places = sorted([*places, *((offset, len(data), "") for offset, data in file.fixed)])
    ends = [*(start for start, _, _ in places[1:]), file.size]
    for (start, size, name), end in zip(places, ends, strict=False):
        if start + size < end:
            yield name, start + size, end
