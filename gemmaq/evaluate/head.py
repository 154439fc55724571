"""From last hidden states to scores, a slab of the vocabulary at a time: logits are never held whole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.checkpoint.rows import weights
from gemmaq.errors import InputError
from gemmaq.evaluate.score import Score
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    import torch

    from gemmaq.checkpoint import Tensor
    from gemmaq.encodings import F32
    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.device import Device
    from gemmaq.inference.documents import Tokens

SLAB = 4096
"""Rows of the vocabulary at a time."""
_BLOCK = 128
"""Tokens at a time on the CPU, whose cache holds their logits of a slab."""
_WIDE_BLOCK = 2048
"""Tokens at a time on another device."""
_DECODED = 512
"""Rows that a worker decodes at a time."""


class _Head:
    """The output head of a model, and running sums over the slabs of its logits.

    Attributes:
        peak: Largest logit of every scored token so far, f64 [scored].
        best: Token id of that logit, i64 [scored].
        total: Sum of exp(logit - peak), f64 [scored].
        divergence: Sum of exp(r - reference's peak) * (r - logit) over the reference's logits r, f64 [scored].
        target: Logit of the token to be predicted, f64 [scored].
    """

    def __init__(self, decoder: Decoder, hidden: F32, slab: int) -> None:
        import torch

        self.decoder = decoder
        self.tensor: Tensor = decoder.checkpoint.head or decoder.checkpoint.embedding
        self.cap = decoder.checkpoint.config.final_logit_softcapping
        self.hidden = torch.empty(hidden.shape)  # aligned as torch does it: MKL's sums depend on that
        self.hidden.copy_(torch.from_numpy(hidden))
        self.hidden = self.hidden.to(decoder.device.torch_device)
        self.buffer = torch.empty((min(slab, self.tensor.rows), self.tensor.columns))
        self.rows = self.buffer
        count = len(hidden)
        self.peak = torch.full((count,), -torch.inf, dtype=torch.float64)
        self.best = torch.zeros(count, dtype=torch.int64)
        self.total = torch.zeros(count, dtype=torch.float64)
        self.divergence = torch.zeros(count, dtype=torch.float64)
        self.target = torch.zeros(count, dtype=torch.float64)

    def logits(self, block: slice) -> torch.Tensor:
        """Logits of a block of tokens over the loaded slab, f32 [tokens, rows]."""
        logits = self.hidden[block] @ self.rows.T
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def add(self, logits: torch.Tensor, block: slice, start: int, targets: torch.Tensor) -> torch.Tensor:
        """Update peak, best and target with the logits of a slab.

        Args:
            logits: Logits of the block, f32 [tokens, rows].
            block: Tokens that they belong to.
            start: First row of the slab.
            targets: Tokens to be predicted, i64 [scored].

        Returns:
            Factor by which sums of exp(logit - peak) shrink as the peak has risen, f64 [tokens].
        """
        import torch

        old, top = self.peak[block].clone(), logits.amax(-1).cpu().double()
        new = torch.maximum(old, top)
        self.peak[block] = new
        higher = (top > old).nonzero().squeeze(1)  # few: searching all for the place would take longer than the rest
        self.best[block][higher] = logits[higher.to(logits.device)].argmax(-1).cpu() + start
        rows = targets[block] - start
        inside = ((rows >= 0) & (rows < logits.shape[1])).nonzero().squeeze(1)
        columns = rows[inside].to(logits.device)
        self.target[block][inside] = logits[inside.to(logits.device), columns].cpu().double()
        return (old - new).exp()

    @property
    def log_total(self) -> torch.Tensor:
        """Logarithm of the sum of exp(logit) over the vocabulary, f64 [scored]."""
        return self.peak + self.total.log()


def block(device: Device) -> int:
    """Tokens whose logits are computed together; sums of a token may depend on the number."""
    return _BLOCK if device.pool else _WIDE_BLOCK


def score(
    decoders: Sequence[Decoder],
    hidden: Sequence[F32],
    targets: Tokens,
    *,
    progress: ProgressCallback,
    slab: int = SLAB,
) -> list[Score]:
    """Score the predictions of models for the same tokens.

    Logits and their sums over a slab are f32, sums of slabs f64. Their order does not depend on the number of workers,
    so that a model's divergence from itself is 0, not nearly 0. Nothing is clamped: of models that are all but equal a
    divergence may come out below 0, by the rounding of f32 logits (1e-7 or so).

    Args:
        decoders: Decoder of the reference, then those of the models.
        hidden: Last hidden states of each, f32 [scored, hidden].
        targets: Tokens to be predicted, i64 [scored].
        progress: Called after every slab of the vocabulary.
        slab: Rows of the vocabulary at a time.

    Raises:
        InputError: The logits are not finite.
    """
    import torch

    device = decoders[0].device
    heads = [_Head(decoder, states, slab) for decoder, states in zip(decoders, hidden, strict=True)]
    target_ids = torch.from_numpy(np.ascontiguousarray(targets))
    rows, task = heads[0].tensor.rows, "predicting"
    step = block(device)
    for start in range(0, rows, slab):
        progress(Progress(task, start, rows, "rows"))
        count = min(slab, rows - start)
        _load(heads, start, count)
        blocks = [slice(at, at + step) for at in range(0, len(targets), step)]
        device.map(partial(_add_block, heads, start, target_ids), blocks)
    progress(Progress(task, rows, rows, "rows"))
    return _scores(heads)


def _load(heads: Sequence[_Head], start: int, count: int) -> None:
    """Decode the rows of a slab for every model."""
    import torch

    device = heads[0].decoder.device

    def decode(job: tuple[_Head, int]) -> None:
        head, at = job
        rows = weights(head.tensor, start + at, min(_DECODED, count - at), head.decoder.reader)
        head.buffer[at : at + len(rows)] = torch.from_numpy(rows)

    device.map(decode, [(head, at) for head in heads for at in range(0, count, _DECODED)])
    for head in heads:
        head.rows = head.buffer[:count].to(device.torch_device)


def _add_block(heads: Sequence[_Head], start: int, targets: torch.Tensor, block: slice) -> None:
    """Add the logits of a block of tokens over the loaded slab to the sums of all models."""
    reference = heads[0]
    expected = reference.logits(block)
    shrunk = reference.add(expected, block, start, targets)
    likely = (expected - reference.peak[block, None].float().to(expected.device)).exp_()
    reference.total[block] = reference.total[block] * shrunk + likely.sum(-1).cpu().double()
    for head in heads[1:]:
        logits = head.logits(block)
        factor = head.add(logits, block, start, targets)
        divergence = (expected - logits).mul_(likely).sum(-1).cpu().double()
        head.divergence[block] = head.divergence[block] * shrunk + divergence
        total = logits.sub_(head.peak[block, None].float().to(logits.device)).exp_().sum(-1).cpu().double()
        head.total[block] = head.total[block] * factor + total


def _scores(heads: Sequence[_Head]) -> list[Score]:
    reference, scores = heads[0], []
    for head in heads:
        surprise = head.log_total - head.target
        kl = head.divergence / reference.total + (head.log_total - reference.log_total)
        if not (surprise.isfinite().all() and kl.isfinite().all()):
            raise InputError("logits are not finite", "the weights are damaged", path=head.decoder.checkpoint.location)
        scores.append(Score(surprise.numpy(), kl.numpy(), (head.best == reference.best).numpy()))
    return scores
