"""Saved states of a training: trained weights and Adam's moments by canonical name, for any number of processes.

A state is a folder `step-0000100` in the work folder. It is written under another name and renamed once all of it is
on disk; only then is the previous state removed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.errors import InputError, OutputError
from gemmaq.files.safetensors_header import parse
from gemmaq.files.span import FileSpan, Reader
from gemmaq.files.text import read_json

if TYPE_CHECKING:
    import torch

SCHEMA = "gemmaq.qat-state/1"
GROUPS = ("weights", "first", "second")
"""Files of a state: the trained weights, and Adam's first and second moments."""

Shape = tuple[int, ...]
Fetch = Callable[[str, str], "torch.Tensor"]
"""(group, name) -> the whole tensor, f32 on the CPU; every process must call it in the same order."""


@dataclass(slots=True)
class State:
    """Progress of a training.

    Attributes:
        identity: settings, text and source; a training continues only where they are equal.
        steps: steps that are planned, of the current layer if block-wise; None until the time budget has decided.
        step: steps done, of the current layer if block-wise.
        losses: loss of every step so far, nats per token.
        before: held-out metrics before training.
        changes: `[step, steps]` whenever the number of steps was changed.
        layer: layer in training if block-wise, else 0.
    """

    identity: dict[str, Any]
    steps: int | None
    step: int = 0
    losses: list[float] = field(default_factory=list)
    before: dict[str, float] = field(default_factory=dict)
    changes: list[list[int]] = field(default_factory=list)
    layer: int = 0

    def document(self) -> dict[str, Any]:
        """The state as JSON values."""
        return {
            "schema": SCHEMA,
            "identity": self.identity,
            "steps": self.steps,
            "step": self.step,
            "losses": self.losses,
            "before": self.before,
            "changes": self.changes,
            "layer": self.layer,
        }

    def set_steps(self, steps: int) -> None:
        """Change the number of steps, on record."""
        self.changes.append([self.step, steps])
        self.steps = steps


def latest(work: Path) -> Path | None:
    """Folder of the last saved state, None if there is none."""
    return max(work.glob("step-[0-9]*"), default=None)


def save(work: Path, state: State, shapes: Mapping[str, Shape], fetch: Fetch, writes: bool) -> None:
    """Save a state and remove the previous one; every process must call this.

    Args:
        work: folder of saved states.
        state: progress of the training.
        shapes: shapes of the trained tensors by name.
        fetch: gives the tensors.
        writes: whether this process writes; the others only take part in fetching.

    Raises:
        OutputError: the disk is full or the folder cannot be written; the previous state is intact.
    """
    stage, final = work / "next.partial", work / f"step-{len(state.losses):07}"
    problem: OSError | None = None
    if writes:
        try:
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir(parents=True)
        except OSError as error:
            problem = error
    for group in GROUPS:
        arrays = (fetch(group, name).numpy() for name in shapes)
        if writes and problem is None:
            try:
                write_tensors(stage / f"{group}.safetensors", shapes, arrays)
            except OSError as error:
                problem = error
        for _ in arrays:  # the other processes wait for this one to fetch
            pass
    if not writes:
        return
    try:
        if problem is not None:
            raise problem
        _write_bytes(stage / "state.json", json.dumps(state.document()).encode())
        if final.exists():
            shutil.rmtree(final)
        stage.rename(final)
        for old in work.glob("step-[0-9]*"):
            if old != final:
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(stage, ignore_errors=True)
        raise save_error(error, work) from error


def save_error(error: OSError, work: Path) -> OutputError:
    """The error to raise for a state that cannot be saved."""
    folder = latest(work)
    hint = f"{folder.name} is intact: free space and continue with --resume" if folder else "no state was saved"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"no space left while saving the training's state in {work}", hint)
    return OutputError(f"the training's state cannot be saved in {work}: {error.strerror or error}", hint)


def write_tensors(path: Path, shapes: Mapping[str, Shape], arrays: Iterable[np.ndarray]) -> None:
    """Write a safetensors file of f32 arrays, given in the order of their shapes.

    Raises:
        OSError: the file cannot be written.
    """
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in arrays:
            file.write(np.ascontiguousarray(values, np.float32).data)
        file.flush()
        os.fsync(file.fileno())


def _write_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def load(folder: Path) -> State:
    """Read the progress of a saved training.

    Raises:
        InputError: the state is damaged.
    """
    value = read_json(folder / "state.json")
    try:
        if value["schema"] != SCHEMA:
            raise ValueError(value["schema"])
        return State(
            dict(value["identity"]),
            None if value["steps"] is None else int(value["steps"]),
            int(value["step"]),
            [float(loss) for loss in value["losses"]],
            dict(value["before"]),
            [list(map(int, change)) for change in value["changes"]],
            int(value.get("layer", 0)),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"is not a state that this gemmaq can continue: {error}", path=folder) from error


def read_tensors(path: Path, shapes: Mapping[str, Shape] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Read the tensors of a safetensors file, f32, one at a time.

    Args:
        path: file to read.
        shapes: names and shapes that it must hold; None for all that it holds.

    Raises:
        InputError: a tensor is missing or damaged.
    """
    import torch

    span = FileSpan.of(path)
    entries = {entry.name: entry for entry in parse(span)}
    with Reader() as reader:
        for name, shape in (shapes or {name: entry.shape for name, entry in entries.items()}).items():
            entry = entries.get(name)
            if entry is None or entry.shape != shape or entry.dtype != "F32":
                raise InputError(f"does not hold {name} as f32 {list(shape)}", path=span)
            data = reader.bytes(span, entry.offset, entry.nbytes)
            yield name, torch.frombuffer(data, dtype=torch.float32).reshape(shape)
