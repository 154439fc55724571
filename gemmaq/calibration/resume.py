"""Calibration that goes on where it was killed: what layers gave is kept beside the output until that is written.

A folder has the files of all layers that are done, and the activations before the next one. What is on record with
these activations, under one seal, decides: files of later layers are not yet there, and those of earlier ones must have
the digests on record. The main process alone keeps it, so that any number of processes can go on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.calibration.sensitivity_work import Work
from gemmaq.errors import InputError, OutputError
from gemmaq.files import sealed
from gemmaq.files import sums as lists
from gemmaq.files.atomic import free_space
from gemmaq.files.text import read_json
from gemmaq.inference.batch import Batch
from gemmaq.inference.peers import Peers
from gemmaq.models.config import TextConfig

if TYPE_CHECKING:
    from gemmaq.inference.device import Device

_FILES, _TEXT, _SUMS = "files", "text", "sums.npz"
_JOB, _WRITTEN, _OWN = "job.json", "written.json", "kept-by-gemmaq"
GPTQ, IMPORTANCE = "gptq", "importance"
"""Folders of methods in the folder beside an output."""
_ANEW = "remove it to begin again"
_AWAY = "move it away, choose another -o, or leave out --resume"
_OTHER = "is of a run with another model, text, version or settings"

Sums = dict[str, tuple[Any, Any]]
"""Name -> sums, f64, and numbers of inputs, i64."""


def folder_of(output: Path) -> Path:
    """Folder in which a run that writes an output keeps what is done."""
    return output.with_name(f"{output.name}.work")


def mark(output: Path, place: Path, staged: Path) -> None:
    """Put on record what an artifact is, before it gets its name, so that a later run knows it for its own.

    Args:
        output: output of the run.
        place: folder of the artifact: the output, or a folder in it.
        staged: folder that it lies in until then, with its list of digests.

    Raises:
        OSError: it cannot be written.
    """
    path = folder_of(output) / _WRITTEN
    known = read_json(path) if path.is_file() else {}
    part = path.with_suffix(".tmp")
    part.write_text(json.dumps({**known, str(place.relative_to(output)): sealed.digest(staged / lists.NAME)}), "utf-8")
    part.replace(path)


def is_written(output: Path) -> bool:
    """Whether an output is what an interrupted run had written, apart from removing what it kept."""
    path = folder_of(output) / _WRITTEN
    try:
        known = read_json(path) if path.is_file() else {}
        return bool(known) and all(sealed.digest(output / at / lists.NAME) == digest for at, digest in known.items())
    except (OSError, InputError):
        return False


def is_own(folder: Path) -> bool:
    """Whether gemmaq made a folder beside an output."""
    return (folder / _OWN).is_file()


def check_own(folder: Path) -> None:
    """Refuse a folder beside an output that gemmaq did not make: it would be written into, and removed at the end.

    Raises:
        OutputError: it is a folder of somebody else's with something in it, or no folder.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError("is in the way of what --resume keeps", _AWAY, path=folder)
    if folder.is_dir() and not is_own(folder) and (others := sorted(path.name for path in folder.iterdir())):
        raise OutputError(f"holds {others[0]}, which gemmaq did not put there", _AWAY, path=folder)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Keep what is done in a folder beside an output; it goes at the end of the block, or if it holds nothing yet.

    Raises:
        OutputError: it is not gemmaq's, or cannot be made.
    """
    check_own(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _OWN).touch()
    except OSError as error:
        raise OutputError(f"cannot be made: {error.strerror}", path=folder) from error
    try:
        yield
    except BaseException:
        if [path.name for path in folder.iterdir()] == [_OWN]:
            _finish(folder)
        raise
    _finish(folder)


def _finish(folder: Path) -> None:
    """Remove what gemmaq kept, when the output is there. What says that the output is written goes last."""
    with suppress(OSError):
        for name in (GPTQ, IMPORTANCE):
            remove(folder / name)
        for name in (Path(_WRITTEN).with_suffix(".tmp").name, _WRITTEN, _OWN):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def remove(folder: Path) -> None:
    """Remove what a run kept. Killed meanwhile, it leaves nothing that looks whole."""
    gone = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def bytes_kept(config: TextConfig, tokens: int, files: int) -> int:
    """Bytes that a run keeps at most: files of these bytes, and activations before two layers in f32.

    Activations are hidden states, and the keys and values that layers share with later ones.
    """
    shared = sum(2 * config.layers[at].kv_width for at in {layer.kv_from for layer in config.layers} if at is not None)
    return files + 2 * 4 * tokens * (config.hidden_size + shared)


def check_room(folder: Path, size: int) -> None:
    """Refuse to begin where the disk does not hold what is kept; what is there already counts.

    Raises:
        OutputError: it does not fit.
    """
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    parent, free = free_space(folder)
    if size - there > free:
        raise OutputError(
            f"has {free:,} bytes free, {size - there:,} are needed to go on after an interruption",
            "free some, or leave out --resume",
            path=parent,
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """What a run through the layers of a model keeps.

    Attributes:
        folder: where it is, in the main process.
        job: all that the result depends on, as JSON values.
        device: device that activations are loaded to.
        peers: processes that share the run; all of them call all functions.
        digests: name of a file -> SHA-256, for the layers that are done; in the main process.
    """

    folder: Path
    job: Mapping[str, Any]
    device: Device
    peers: Peers
    digests: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def files_in(folder: Path) -> Path:
        """Folder for the files of layers; what a layer writes must not change when the layer is done."""
        return folder / _FILES

    @property
    def files(self) -> Path:
        """See `files_in`."""
        return self.files_in(self.folder)

    @property
    def _work(self) -> Work:
        return Work(self.folder, self.device)

    def begin(self) -> tuple[int, dict[str, Any]]:
        """Make the folder, or go on in it.

        Returns:
            Number of layers that are done; and what `close` put on record, in the main process.

        Raises:
            InputError: the folder is of another run, or damaged.
            OutputError: the folder cannot be made.
            OSError: a file cannot be read or removed.
        """
        done, found = 0, dict[str, Any]()
        if self.peers.main:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                done = self._work.begin(self.job, resume=True)
            except InputError as error:
                other = error.problem.startswith("is of a measurement")
                raise InputError(_OTHER if other else error.problem, _ANEW, path=self.folder) from error
            found = self._work.found(done)
            self.files.mkdir(exist_ok=True)
            self.digests.update(found.get("digests", {}))
            self._check()
        return self.peers.broadcast(done), found.get("more", {})

    def _check(self) -> None:
        """Check the files of layers that are done, and remove all others."""
        for name, wanted in self.digests.items():
            path = self.files / name
            if not path.is_file() or sealed.digest(path) != wanted:
                anew = f"remove {self.folder} to begin again"
                raise InputError("is damaged: it is not what was kept", anew, path=path)
        for path in self.files.iterdir():
            if path.name not in self.digests:
                path.unlink()

    def restore(self, index: int, batches: Sequence[Batch], first: int) -> None:
        """Replace the activations of this process's batches by those before a layer.

        Args:
            index: number of the layer.
            batches: what follows another layer, or the embedding.
            first: number of the first of these batches in the text.
        """
        import torch

        runs = self.peers.gather((first, len(batches)))
        states: list[tuple[Any, Any]] = []
        like, layer = Batch(torch.empty(0), torch.empty(0)), self._work.before(index)
        for rank, (start, count) in reversed([*enumerate(runs)]):
            loaded = [layer.load(_TEXT, at, like) for at in range(start, start + count)]
            states = [(batch.hidden, dict(batch.shared)) for batch in loaded]
            if rank:
                self.peers.send(states, rank)
        states = states if self.peers.main else self.peers.receive(0)
        for batch, (hidden, shared) in zip(batches, states, strict=True):
            batch.hidden, batch.shared = hidden, shared

    def close(self, index: int, batches: Sequence[Batch], first: int, more: Mapping[str, Any]) -> None:
        """Keep what follows a layer.

        Args:
            index: number of the next layer.
            batches: activations before it, of this process.
            first: number of the first of these batches in the text.
            more: what to put on record, as JSON values, in the main process.

        Raises:
            OSError: it cannot be written.
        """
        everyone = self.peers.gather((first, [(batch.hidden, dict(batch.shared)) for batch in batches]))
        if not self.peers.main:
            return
        layer = self._work.opened(index)
        for start, states in everyone:
            for number, (hidden, shared) in enumerate(states, start):
                layer.save(_TEXT, number, Batch(hidden, hidden, None, shared))
        for path in self.files.iterdir():
            if path.name not in self.digests:
                self.digests[path.name] = sealed.digest(path)
        self._work.close(index, {"digests": self.digests, "more": dict(more)})


def write_sums(path: Path, sums: Mapping[str, tuple[Any, Any]]) -> None:
    """Write sums and numbers of inputs into a file.

    Raises:
        OSError: it cannot be written.
    """
    arrays = {f"{kind} {name}": array for name, pair in sums.items() for kind, array in zip("sn", pair, strict=True)}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def read_sums(path: Path) -> Sums:
    """What `write_sums` wrote."""
    with np.load(path) as arrays:
        names = [name[2:] for name in arrays.files if name.startswith("s ")]
        return {name: (arrays[f"s {name}"], arrays[f"n {name}"]) for name in names}


@dataclass(frozen=True, slots=True)
class Passes:
    """Sums of several passes through a model: those of the passes that are done, and the layers of the one under way.

    Attributes:
        folder: where they are, in the main process.
        job: all that the result depends on, as JSON values.
        peers: processes that share the run.
    """

    folder: Path
    job: Mapping[str, Any]
    peers: Peers

    def begin(self) -> tuple[int, Sums]:
        """Number of passes that are done, and their sums in the main process.

        Raises:
            InputError: what was kept is damaged, or of another run.
        """
        done, sums = 0, Sums()
        if self.peers.main:
            folder = sealed.last(sealed.numbered(self.folder.glob("sums-????")), _ANEW).folder
            if folder is not None:
                if read_json(folder / _JOB) != json.loads(json.dumps(self.job)):
                    raise InputError(_OTHER, _ANEW, path=self.folder)
                done, sums = int(folder.name[-4:]), read_sums(folder / _SUMS)
        return self.peers.broadcast(done), sums

    def layers(self, number: int, device: Device) -> Kept:
        """What is kept of the layers of a pass."""
        return Kept(self._pass(number), {**self.job, "pass": number}, device, self.peers)

    def close(self, number: int, sums: Mapping[str, tuple[Any, Any]]) -> None:
        """Keep the sums of so many passes; what was kept before goes.

        Raises:
            OSError: they cannot be written.
        """
        if not self.peers.main:
            return
        path = self.folder / f"sums-{number:04}"
        part = path.with_suffix(".partial")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_sums(part / _SUMS, sums)
        (part / _JOB).write_text(json.dumps(self.job), "utf-8")
        sealed.seal(part)
        shutil.rmtree(path, ignore_errors=True)  # one that was damaged
        part.rename(path)
        for old in (self._pass(number - 1), self.folder / f"sums-{number - 1:04}"):
            shutil.rmtree(old, ignore_errors=True)

    def _pass(self, number: int) -> Path:
        return self.folder / f"pass-{number:04}"
