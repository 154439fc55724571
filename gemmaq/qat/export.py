"""Weights made here, as a checkpoint like any other, and as a BF16 folder by the ordinary container."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gemmaq.checkpoint import Checkpoint, plain
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import OutputError
from gemmaq.files.atomic import check_output
from gemmaq.files.span import FileSpan

if TYPE_CHECKING:
    from gemmaq.encodings import F32

Weights = Iterable[tuple[str, "F32"]]
"""Canonical name and weights as Hugging Face has them, f32 in the tensor's shape."""

_SOURCE = "trained-weights.bf16"


def spilled(checkpoint: Checkpoint, weights: Weights, path: Path) -> Checkpoint:
    """The checkpoint with some of its tensors replaced by others, which are written to a file in BF16.

    Raises:
        OutputError: the file cannot be written.
    """
    from gemmaq.encodings.bitstream import pack_floats

    bf16, places, at = ENCODINGS["bf16"], {}, 0
    try:
        with path.open("wb") as file:
            for name, values in weights:
                places[name] = at
                at += file.write(pack_floats(bf16, values.reshape(-1, values.shape[-1])).data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", "free space, or choose another -o") from error
    span = FileSpan.of(path)
    tensors = dict(checkpoint.tensors)
    for name, at in places.items():
        tensors[name] = plain(name, tensors[name].shape, bf16, span=span, offset=at, place=tensors[name].place)
    return replace(checkpoint, tensors=tensors)


def write_folder(
    checkpoint: Checkpoint,
    weights: Weights,
    out: Path,
    threads: int,
    force: bool = False,
    beside: Callable[[], Mapping[str, bytes]] = dict,
) -> None:
    """A Hugging Face folder in BF16, all of it or nothing: the checkpoint with some of its weights replaced.

    Args:
        checkpoint: gives config, tokenizer and every weight that is not replaced.
        weights: that are.
        out: folder to be made.
        threads: workers.
        force: replace an earlier artifact.
        beside: more files to lie in it.

    Raises:
        InputError: the checkpoint cannot be read.
        OutputError: the folder exists, does not fit, or cannot be written.
    """
    from gemmaq.convert.layout import make_plans
    from gemmaq.convert.run import Conversion, Options, run
    from gemmaq.planning import recipe
    from gemmaq.planning.request import Request

    check_output(out, 0, checkpoint.files, force)
    request = Request(recipe.of("bf16", None, "nearest", ()), ("safetensors",))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".partial", dir=out.parent) as room:
        changed = spilled(checkpoint, weights, Path(room) / _SOURCE)
        options = Options(threads, force=force, extra_files=beside)
        run(Conversion(changed, request, out), make_plans(changed, request, {}), options)
