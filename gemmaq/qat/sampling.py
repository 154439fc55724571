"""The teacher's distribution as samples on disk, so that training does without the teacher.

For every position some tokens are drawn without replacement, with the teacher's probabilities; these are normalised
over the drawn tokens. Source: arXiv 2503.19786, section 2.2 (256 logits per token, weighted by teacher probabilities).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.errors import OutputError
from gemmaq.files import sealed, sums
from gemmaq.inference.divergence import Head, logits

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gemmaq.qat.data import TokenDataset

_NAME = "teacher-samples"


@dataclass(frozen=True, slots=True)
class Samples:
    """Tokens sampled from the teacher's distribution.

    Attributes:
        ids: indices among the tokens that the loss covers, i32 [sequences, length, samples].
        shares: probabilities, f32 in the same shape; they sum to 1 for every position.
        device: device to load them to.
    """

    ids: Any
    shares: Any
    device: torch.device

    def of(self, sequences: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sampled indices and probabilities for the sequences with these indices."""
        import torch

        at = sequences.cpu().numpy()
        return tuple(torch.from_numpy(np.ascontiguousarray(a[at])).to(self.device) for a in (self.ids, self.shares))  # type: ignore[return-value]


def load(work: Path, data: TokenDataset, count: int, device: torch.device) -> Samples | None:
    """Open the samples of an earlier run, None if there are none, or if they are damaged."""
    size = 4 * data.train.size * count
    try:
        if any(file.stat().st_size != size for file in _files(work)):
            return None
        is_intact = _list(work).read_bytes() == _digests(work)
    except OSError:
        return None
    return _open(work, data, count, device) if is_intact else None


def _open(work: Path, data: TokenDataset, count: int, device: torch.device) -> Samples:
    shape, (ids, shares) = (*data.train.shape, count), _files(work)
    return Samples(np.memmap(ids, np.int32, "r", shape=shape), np.memmap(shares, np.float32, "r", shape=shape), device)


def draw(
    teacher: nn.Module,
    head: Head,
    data: TokenDataset,
    *,
    count: int,
    seed: int,
    device: torch.device,
    work: Path,
    progress: Callable[[int, int], None],
) -> Samples:
    """Run the teacher over the text and write samples.

    Args:
        teacher: network of the teacher.
        head: head that the loss is computed behind.
        data: token sequences.
        count: samples per position.
        seed: seed of the draws.
        device: device of the teacher.
        work: folder to write to.
        progress: called with sequences done and in all.

    Raises:
        OutputError: they cannot be written.
    """
    import torch

    files, total = _files(work), len(data.train)
    stages = [file.with_suffix(file.suffix + ".partial") for file in files]
    try:
        _list(work).unlink(missing_ok=True)
        with stages[0].open("wb") as ids_file, stages[1].open("wb") as shares_file, torch.no_grad():
            for number in range(total):
                progress(number, total)
                ids = torch.from_numpy(data.train[number : number + 1]).to(device)
                hidden, rows = teacher(ids, lambda hidden, embedding: (hidden, head.rows_of(embedding)))
                shares = logits(hidden[0], rows, head.cap, head.dtype).softmax(-1).cpu()
                noise = torch.empty_like(shares).exponential_(generator=_generator(seed, number))
                at = (shares / noise).topk(count, dim=-1).indices.sort(-1).values
                drawn = shares.gather(1, at)
                ids_file.write(at.to(torch.int32).numpy().data)
                shares_file.write((drawn / drawn.sum(-1, keepdim=True)).numpy().data)
            for file in (ids_file, shares_file):
                file.flush()
                os.fsync(file.fileno())
        for stage, path in zip(stages, files, strict=True):
            stage.rename(path)
        _list(work).write_bytes(_digests(work))
    except OSError as error:
        for stage in stages:
            stage.unlink(missing_ok=True)
        raise OutputError(f"the teacher's samples cannot be written to {work}: {error.strerror}") from error
    progress(total, total)
    return _open(work, data, count, device)


def _files(work: Path) -> tuple[Path, Path]:
    """Files of the token indices and of their probabilities."""
    return work / f"{_NAME}.i32", work / f"{_NAME}.f32"


def _list(work: Path) -> Path:
    """File with the digests of the samples."""
    return work / f"{_NAME}.sha256"


def _digests(work: Path) -> bytes:
    return sums.text({file.name: sealed.digest(file) for file in _files(work)})


def _generator(seed: int, number: int) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(seed * 1_000_003 + number)
