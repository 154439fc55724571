"""Saved states of a training: trained weights and Adam's moments by canonical name, for any number of processes.

A state is a folder `step-0000100` in the work folder. It is written under another name and renamed once all of it is
on disk, with the digests of its files. The last two states are kept: if the last one is damaged, training continues
from the one before. No more than two are ever on disk.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.errors import InputError, OutputError
from gemmaq.files import sealed
from gemmaq.files.safetensors_header import parse
from gemmaq.files.span import FileSpan, Reader
from gemmaq.files.text import read_json

if TYPE_CHECKING:
    import torch

SCHEMA = "gemmaq.qat-state/2"
MOST_STEPS = 9_999_999
"""Steps of a training at most, of all layers together: the names of states have seven digits."""
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
        trained: SHA-256 of the files of the layers before it.
        saved: folder of the last state that is on disk, None for none; not part of the document.
    """

    identity: dict[str, Any]
    steps: int | None
    step: int = 0
    losses: list[float] = field(default_factory=list)
    before: dict[str, float] = field(default_factory=dict)
    changes: list[list[int]] = field(default_factory=list)
    layer: int = 0
    trained: list[str] = field(default_factory=list)
    saved: Path | None = None

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
            "trained": self.trained,
        }

    def set_steps(self, steps: int) -> None:
        """Change the number of steps, on record."""
        self.changes.append([self.step, steps])
        self.steps = steps


def latest(work: Path) -> sealed.Last:
    """The last saved state that is intact.

    Raises:
        InputError: there are states, and all are damaged.
    """
    return sealed.last(_all(work), "begin anew with --force")


def intact(work: Path) -> str | None:
    """Name of the last saved state that is intact, None if there is none."""
    with suppress(InputError):
        folder = latest(work).folder
        return folder.name if folder is not None else None
    return None


def _all(work: Path) -> list[Path]:
    """Folders of states, in the order of their steps."""
    return sealed.numbered(work.glob("step-*"))


def save(work: Path, state: State, shapes: Mapping[str, Shape], fetch: Fetch, writes: bool) -> None:
    """Save a state, and keep the one before it and no other; every process must call this.

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
            _clear(work, state.saved, final)
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
        sealed.seal(stage)
        if final.exists():
            shutil.rmtree(final)
        stage.rename(final)
        state.saved = final
    except OSError as error:
        shutil.rmtree(stage, ignore_errors=True)
        raise save_error(error, work) from error


def _clear(work: Path, saved: Path | None, final: Path) -> None:
    """Remove all states but the one that is known to be intact, to make room for another.

    Args:
        work: folder of saved states.
        saved: the state that stays; the one before it as well, if it is to be replaced itself.
        final: name of the state to be written.
    """
    before = [folder for folder in _all(work) if saved is not None and folder.name < saved.name]
    kept = {saved, *(before[-1:] if saved == final else [])}
    for folder in set(work.glob("step-*")) - kept:
        shutil.rmtree(folder, ignore_errors=True)


def save_error(error: OSError, work: Path) -> OutputError:
    """The error to raise for a state that cannot be saved."""
    name = intact(work)
    hint = f"{name} is intact: free space and continue with --resume" if name else "no state was saved"
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
        InputError: the state is damaged, or its numbers contradict each other.
    """
    value = read_json(folder / "state.json")
    try:
        if value["schema"] != SCHEMA:
            raise ValueError(f"its schema is {value['schema']!r:.60}")
        state = State(
            dict(value["identity"]),
            None if value["steps"] is None else _count(value["steps"]),
            _count(value["step"]),
            [float(loss) for loss in value["losses"]],
            dict(value["before"]),
            [[_count(number) for number in change] for change in value["changes"]],
            _count(value["layer"]),
            [str(digest) for digest in value["trained"]],
            folder,
        )
        _check(state, folder)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"is not a state that this gemmaq can continue: {what}", "begin anew with --force", path=folder
        ) from error
    return state


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_STEPS:
        raise ValueError(f"{value!r:.40} is no number of steps or layers")
    return value


def _check(state: State, folder: Path) -> None:
    """Check that the numbers of a state are possible together.

    Raises:
        ValueError: they are not.
    """
    made = len(state.losses)
    if folder.name != f"step-{made:07}":
        raise ValueError(f"it has the losses of {made} steps")
    if not all(map(math.isfinite, state.losses)):
        raise ValueError("a loss is not finite")
    if state.steps is not None and not max(1, state.step) <= state.steps:
        raise ValueError(f"{state.step} of {state.steps} steps are made")
    is_first = not state.identity.get("block_wise") or not state.layer
    if state.step > made or (is_first and state.step != made):
        raise ValueError(f"{state.step} steps are made, and it has the losses of {made}")
    if len(state.trained) != state.layer:
        raise ValueError(f"layer {state.layer} is in training, and {len(state.trained)} are trained")
    if any(len(change) != 2 or change[0] > made for change in state.changes):
        raise ValueError("its changes of the number of steps are none")


def layer_file(work: Path, index: int) -> Path:
    """File of a trained layer in the work folder of a block-wise training."""
    return work / f"layer-{index:04}.safetensors"


def check_layers(work: Path, state: State) -> None:
    """Check that the files of trained layers are those that a state goes on from.

    Raises:
        InputError: one is missing or damaged.
    """
    for index, wanted in enumerate(state.trained):
        path = layer_file(work, index)
        try:
            found = sealed.digest(path)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", "begin anew with --force", path=path) from error
        if found != wanted:
            raise InputError("is damaged: it is not what was trained", "begin anew with --force", path=path)


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
