"""The teacher's distribution as samples on disk: training then does without the teacher.

Of every token some are drawn without replacement, by the teacher's probabilities; their probabilities are what is
left when all others are dropped. Source: Gemma 3 report, section 2.2 (256 logits a token, renormalised).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.errors import OutputError
from gemmaq.qat.loss import logits

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gemmaq.qat.data import Data
    from gemmaq.qat.train import Trainer

NAME = "teacher-samples"


@dataclass(frozen=True, slots=True)
class Samples:
    """Drawn tokens, by their places among those the loss is over, and their shares.

    Attributes:
        ids: i32 [sequences, length, samples].
        shares: f32, the same shape; they sum to 1.
        device: to put them on.
    """

    ids: Any
    shares: Any
    device: torch.device

    def of(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of some sequences."""
        import torch

        at = places.cpu().numpy()
        return tuple(torch.from_numpy(np.ascontiguousarray(a[at])).to(self.device) for a in (self.ids, self.shares))  # type: ignore[return-value]


def opened(work: Path, data: Data, count: int, device: torch.device) -> Samples | None:
    """What was drawn before, None if nothing was."""
    shape = (*data.train.shape, count)
    files = [work / f"{NAME}.{kind}" for kind in ("i32", "f32")]
    if any(not file.is_file() or file.stat().st_size != 4 * int(np.prod(shape)) for file in files):
        return None
    ids = np.memmap(files[0], np.int32, "r", shape=shape)
    return Samples(ids, np.memmap(files[1], np.float32, "r", shape=shape), device)


def draw(work: Path, teacher: nn.Module, trainer: Trainer, count: int) -> Samples:
    """Run the teacher over the text and keep samples.

    Raises:
        OutputError: they cannot be written.
    """
    import torch

    head, data, ranks, seed = trainer.head, trainer.data, trainer.ranks, trainer.settings.seed
    files = [work / f"{NAME}.{kind}" for kind in ("i32", "f32")]
    stages = [file.with_suffix(file.suffix + ".partial") for file in files]
    try:
        with stages[0].open("wb") as first, stages[1].open("wb") as second, torch.no_grad():
            for number in range(len(data.train)):
                ids = torch.from_numpy(data.train[number : number + 1]).to(ranks.device)
                hidden, rows = teacher(ids, lambda hidden, embedding: (hidden, head.rows_of(embedding)))
                shares = logits(hidden[0], rows, head.cap, head.dtype).softmax(-1).cpu()
                noise = torch.empty_like(shares).exponential_(generator=_generator(seed, number))
                at = (shares / noise).topk(min(count, head.width), dim=-1).indices.sort(-1).values
                kept = shares.gather(1, at)
                first.write(at.to(torch.int32).numpy().data)
                second.write((kept / kept.sum(-1, keepdim=True)).numpy().data)
            for made in (first, second):
                made.flush()
                os.fsync(made.fileno())
        for stage, file in zip(stages, files, strict=True):
            stage.rename(file)
    except OSError as error:
        for stage in stages:
            stage.unlink(missing_ok=True)
        raise OutputError(f"the teacher's samples cannot be written to {work}: {error.strerror}") from error
    found = opened(work, data, min(count, head.width), ranks.device)
    assert found is not None
    return found


def _generator(seed: int, number: int) -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(seed * 1_000_003 + number)
