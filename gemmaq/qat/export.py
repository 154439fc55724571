"""Trained weights as a checkpoint like any other, and as a BF16 folder in the safetensors container."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gemmaq.checkpoint import Checkpoint, plain
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import OutputError
from gemmaq.files.atomic import check_output
from gemmaq.files.span import FileSpan
from gemmaq.files.workplace import claimed, folder_beside

if TYPE_CHECKING:
    from gemmaq.encodings import F32

Weights = Iterable[tuple[str, "F32"]]
"""Canonical names and weights in the convention of Hugging Face, f32 in the tensor's shape."""

_SOURCE = "trained-weights.bf16"


def spilled(checkpoint: Checkpoint, weights: Weights, path: Path) -> Checkpoint:
    """Replace tensors of a checkpoint, and write the new ones to a file in BF16.

    Raises:
        OutputError: the file cannot be written.
    """
    from gemmaq.encodings.bitstream import pack_floats

    bf16, offsets, end = ENCODINGS["bf16"], {}, 0
    try:
        with path.open("wb") as file:
            for name, values in weights:
                offsets[name] = end
                end += file.write(pack_floats(bf16, values.reshape(-1, values.shape[-1])).data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror}", "free space, or choose another -o", path=path
        ) from error
    span = FileSpan.of(path)
    tensors = {}
    for name, offset in offsets.items():
        old = checkpoint.tensors[name]
        tensors[name] = plain(name, old.shape, bf16, span=span, offset=offset, place=old.place)
    return replace(checkpoint, tensors={**checkpoint.tensors, **tensors})


def write_folder(
    checkpoint: Checkpoint,
    weights: Weights,
    out: Path,
    *,
    threads: int,
    force: bool = False,
    side_files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a checkpoint with some of its weights replaced, as a Hugging Face folder in BF16; all of it or nothing.

    Args:
        checkpoint: gives config, tokenizer and every weight that is not replaced.
        weights: replacement weights.
        out: folder to write.
        threads: worker threads.
        force: replace an existing artifact.
        side_files: names and contents of further files to write.

    Raises:
        InputError: the checkpoint cannot be read.
        OutputError: the folder exists, does not fit, or cannot be written.
    """
    from gemmaq.convert.layout import make_plans
    from gemmaq.convert.run import Conversion, Options, run
    from gemmaq.planning import recipe
    from gemmaq.planning.request import Request

    check_output(out, 0, inputs=checkpoint.files, force=force)
    request = Request(recipe.of("bf16", embedding=None, method="nearest", rules=()), ("safetensors",))
    with claimed(out), folder_beside(out) as room:
        changed = spilled(checkpoint, weights, room / _SOURCE)
        options = Options(threads, force=force, extra_files=lambda: side_files or {})
        run(Conversion(changed, (request,), out), make_plans(changed, request, {}), options)
