"""The state of a training on disk: latents and moments by name, so that any number of processes can go on from it.

A state is a folder `step-000100` beside the output, written under another name and renamed when all of it is on the
disk; only then the one before it goes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
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
"""Latents, and Adam's two moments."""

Shape = tuple[int, ...]
Fetch = Callable[[str, str], "torch.Tensor"]
"""Group and name -> the whole tensor, f32 on the CPU; every process must ask in the same order."""


@dataclass(slots=True)
class State:
    """How far a training is.

    Attributes:
        identity: settings, text and source: what must be the same to go on.
        steps: it is to have.
        step: that comes next.
        losses: of the steps so far, nats a token.
        before: what the model was worth before the first.
        changes: of the number of steps, `[step, steps]`.
    """

    identity: dict[str, Any]
    steps: int
    step: int = 0
    losses: list[float] = field(default_factory=list)
    before: dict[str, float] = field(default_factory=dict)
    changes: list[list[int]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "schema": SCHEMA,
            "identity": self.identity,
            "steps": self.steps,
            "step": self.step,
            "losses": self.losses,
            "before": self.before,
            "changes": self.changes,
        }


def work_folder(out: Path) -> Path:
    """Where the states of a training lie."""
    out = Path(os.path.abspath(out))
    return out.with_name(f"{out.name}.work")


def saved(work: Path) -> Path | None:
    """The latest state in a folder, None if there is none."""
    found = sorted(work.glob("step-[0-9]*"))
    return found[-1] if found else None


def save(work: Path, state: State, shapes: dict[str, Shape], fetch: Fetch, writes: bool) -> None:
    """Write a state and drop those before it.

    Args:
        work: folder of the training.
        state: how far it is.
        shapes: of everything trained, by name.
        fetch: gives the tensors.
        writes: whether this process does; the others only take part in fetching.

    Raises:
        OutputError: there is no space, or the folder cannot be written; the state before is as it was.
    """
    stage, final = work / "next.partial", work / f"step-{state.step:07}"
    problem: OSError | None = None
    if writes:
        try:
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir(parents=True)
        except OSError as error:
            problem = error
    for group in GROUPS:
        tensors = (fetch(group, name).numpy() for name in shapes)
        if not writes or problem is not None:
            for _ in tensors:
                pass
            continue
        try:
            write_tensors(stage / f"{group}.safetensors", shapes, tensors)
        except OSError as error:
            problem = error
            for _ in tensors:
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
        raise no_room(error, work) from error


def no_room(error: OSError, work: Path) -> OutputError:
    """What to say of a state that cannot be written."""
    kept = saved(work)
    rest = f"{kept.name} is intact: free space and go on from it with --resume" if kept else "no state was kept"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"no space left while saving the training's state in {work}", rest)
    return OutputError(f"the training's state cannot be saved in {work}: {error.strerror or error}", rest)


def write_tensors(path: Path, shapes: dict[str, Shape], tensors: Iterable[np.ndarray]) -> None:
    """A safetensors file of f32 arrays in the order of their shapes.

    Raises:
        OSError: as it comes.
    """
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in tensors:
            file.write(np.ascontiguousarray(values, np.float32).data)
        file.flush()
        os.fsync(file.fileno())


def _write_bytes(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def load(folder: Path) -> State:
    """How far the training was.

    Raises:
        InputError: the state is damaged.
    """
    value = read_json(folder / "state.json")
    try:
        if value["schema"] != SCHEMA:
            raise ValueError(value["schema"])
        return State(
            dict(value["identity"]),
            int(value["steps"]),
            int(value["step"]),
            [float(loss) for loss in value["losses"]],
            dict(value["before"]),
            [list(map(int, change)) for change in value["changes"]],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder} is no state that this gemmaq can go on from: {error}") from error


def tensors(folder: Path, group: str, shapes: dict[str, Shape]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a group, f32, one at a time.

    Raises:
        InputError: one is missing or damaged.
    """
    import torch

    span = FileSpan.of(folder / f"{group}.safetensors")
    entries = {entry.name: entry for entry in parse(span)}
    with Reader() as reader:
        for name, shape in shapes.items():
            entry = entries.get(name)
            if entry is None or entry.shape != shape or entry.dtype != "F32":
                raise InputError(f"{span} does not hold {name} as f32 {list(shape)}")
            data = reader.bytes(span, entry.offset, entry.nbytes)
            yield name, torch.frombuffer(data, dtype=torch.float32).reshape(shape)
