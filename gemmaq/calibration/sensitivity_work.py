"""The state of a measurement on disk: activations of every variant of the model after a layer, so that it can go on.

The last two layers are kept, with the digests of their files: if those of the last one are damaged, the measurement
goes on from the one before. No more than two are ever on disk.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.errors import InputError, OutputError
from gemmaq.files import sealed
from gemmaq.files.text import read_json
from gemmaq.inference.batch import Batch

if TYPE_CHECKING:
    from gemmaq.inference.device import Device

_JOB, _FOUND, _HIDDEN = "job.json", "found.json", "hidden"
_LAYER = "layer-"
_ANEW = "begin again with --force"


@dataclass(frozen=True, slots=True)
class Layer:
    """Activations before a layer, in a folder: a file for every batch of every variant."""

    folder: Path
    device: Device

    def save(self, variant: str, number: int, batch: Batch) -> None:
        """Keep a batch of a variant: hidden states, and what layers share."""
        arrays = {_HIDDEN: batch.hidden} | {
            f"{name}.{at}": part for name, parts in batch.shared.items() for at, part in enumerate(parts)
        }
        with (self.folder / f"{variant}.{number}.npz").open("wb") as file:
            kept: dict[str, Any] = {name: part.cpu().numpy() for name, part in arrays.items()}
            np.savez(file, **kept)

    def load(self, variant: str, number: int, like: Batch) -> Batch:
        """A batch that was kept, with the tokens and the layers' further inputs of another one."""
        import torch

        from gemmaq.inference.device import aligned

        shared: dict[str, list[torch.Tensor]] = {}
        hidden = like.hidden
        with np.load(self.folder / f"{variant}.{number}.npz") as arrays:
            for name in arrays.files:
                values = torch.from_numpy(arrays[name])
                on_device = aligned(*values.shape).copy_(values).to(self.device.torch_device)
                if name == _HIDDEN:
                    hidden = on_device
                else:
                    shared.setdefault(name.rpartition(".")[0], []).append(on_device)
        return Batch(hidden, like.places, like.inputs, {name: tuple(parts) for name, parts in shared.items()})


@dataclass(frozen=True, slots=True)
class Work:
    """Folder of a measurement.

    Attributes:
        folder: where it is.
        device: device that activations are loaded to.
    """

    folder: Path
    device: Device

    def begin(self, job: Mapping[str, Any], resume: bool) -> int:
        """Make the folder, or go on in it.

        Args:
            job: all that the result depends on, as JSON values.
            resume: go on where an earlier run stopped.

        Returns:
            Number of layers that are done.

        Raises:
            InputError: the earlier run measured something else, or what it left is damaged.
            OutputError: the folder exists and is not to be used, or cannot be made.
        """
        path = self.folder / _JOB
        if path.is_file():
            if not resume:
                raise OutputError(
                    "exists: an earlier measurement was not finished",
                    "go on with --resume, or begin again with --force",
                    path=self.folder,
                )
            if read_json(path) != json.loads(json.dumps(job)):
                raise InputError(
                    "is of a measurement of another model, with other text or other flags",
                    "give the same ones, or begin again with --force",
                    path=self.folder,
                )
            return self._done()
        try:
            self.folder.mkdir(exist_ok=True)
            others = sorted({file.name for file in self.folder.iterdir()} - {path.with_suffix(".tmp").name})
            if others:
                raise OutputError(f"holds {others[0]}, but no {path.name}", "move it away", path=self.folder)
            _write(path, job)
        except OSError as error:
            raise OutputError(f"cannot be made: {error.strerror}", path=self.folder) from error
        return 0

    def _done(self) -> int:
        """Layers that are done, by the last folder that is intact."""
        folder = sealed.last(self._layers(), _ANEW).folder
        return int(folder.name[len(_LAYER) :]) if folder is not None else 0

    def _layers(self) -> list[Path]:
        return sealed.numbered(self.folder.glob(f"{_LAYER}????"))

    def before(self, index: int) -> Layer:
        """Activations before a layer that is next."""
        return Layer(self._path(index), self.device)

    def found(self, index: int) -> dict[str, Any]:
        """What was found in the layers before one, as JSON values.

        Raises:
            InputError: it is damaged.
        """
        return read_json(self._path(index) / _FOUND) if index else {}

    def opened(self, index: int) -> Layer:
        """An empty folder for the activations before a layer; of the others only that of the layer before stays."""
        for folder in self._layers():
            if folder != self._path(index - 1):
                shutil.rmtree(folder, ignore_errors=True)
        part = self._path(index).with_suffix(".partial")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        return Layer(part, self.device)

    def close(self, index: int, found: Mapping[str, Any]) -> None:
        """Give the opened folder its name, with what was found so far and the digests of its files."""
        path = self._path(index)
        _write(path.with_suffix(".partial") / _FOUND, found)
        sealed.seal(path.with_suffix(".partial"))
        path.with_suffix(".partial").rename(path)

    def _path(self, index: int) -> Path:
        return self.folder / f"{_LAYER}{index:04}"


def _write(path: Path, value: Mapping[str, Any]) -> None:
    part = path.with_suffix(".tmp")
    part.write_text(json.dumps(value), "utf-8")
    os.replace(part, path)


def bytes_kept(variants: int, sequences: Sequence[int], width: int) -> int:
    """Bytes of activations at most: those of two layers, while one is written.

    Args:
        variants: variants of the model.
        sequences: tokens that go through variants, and through the unquantized model beside.
        width: numbers kept of a token.
    """
    of_variants, beside = sequences
    return 2 * 4 * width * (variants * of_variants + beside)
