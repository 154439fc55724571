"""Sensitivities of a model: from a file, from the cache, or measured now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from gemmaq import __version__
from gemmaq.calibration.complete import Basis
from gemmaq.checkpoint import Checkpoint
from gemmaq.errors import GemmaqError
from gemmaq.files import caches
from gemmaq.files.atomic import write_file
from gemmaq.planning import sensitivities as files
from gemmaq.planning.sensitivities import Sensitivities

Measure = Callable[[Sequence[str]], Sensitivities]
"""Measures sensitivities to types of these names."""


def default_folder() -> Path:
    """Folder of measured sensitivities, beside the cache of evaluations."""
    return caches.folder("sensitivity")


def given(path: Path, checkpoint: Checkpoint) -> Sensitivities:
    """Sensitivities from a file.

    Raises:
        NotFoundError: it is missing.
        InputError: it is damaged, or of another model.
    """
    found = files.read(path)
    files.check(found, checkpoint)
    return found


def measured(
    checkpoint: Checkpoint, basis: Basis, types: Sequence[str], *, method: str, measure: Measure, folder: Path
) -> Sensitivities:
    """Sensitivities from the cache, or measured and kept there.

    Args:
        checkpoint: the model.
        basis: text to measure on.
        types: names of the types to choose from.
        method: name of the method that chooses codes.
        measure: measures them.
        folder: the cache.

    Raises:
        InputError: the model or the text is unusable.
    """
    path = folder / f"{_key(checkpoint, basis, types, method)}.json"
    with suppress(GemmaqError, OSError):
        return files.read(path)
    found = measure(types)
    with suppress(OSError, GemmaqError):
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, files.document(found), force=True)
    return found


def _key(checkpoint: Checkpoint, basis: Basis, types: Sequence[str], method: str) -> str:
    """Name of the entry; another one whenever weights, text, types or software change."""
    settings = basis.calibration
    of_text = (settings.digest, settings.tokens, settings.context)
    identity = (__version__, files.fingerprint(checkpoint), of_text, sorted(types), method)
    return sha256(repr(identity).encode()).hexdigest()
