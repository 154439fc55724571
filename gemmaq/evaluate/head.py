"""From last activations to scores, a slab of the vocabulary at a time: logits are never held whole."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.checkpoint.rows import weights
from gemmaq.errors import InputError
from gemmaq.evaluate import Score
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    import torch

    from gemmaq.checkpoint import Tensor
    from gemmaq.encodings import F32
    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.documents import Tokens

SLAB = 4096
"""Rows of the vocabulary at a time."""
_BLOCK = 128
"""Tokens at a time on the CPU: their logits of a slab stay in its cache."""
_WIDE_BLOCK = 2048
"""Elsewhere."""
_DECODED = 512
"""Rows decoded by a worker at a time."""


class _Head:
    """A model's last matrix, and what is known of its predictions after some slabs.

    Attributes:
        peak: largest logit of every token so far, f64 [scored].
        best: its place.
        total: sum of exp(logit - peak).
        apart: sum of exp(reference's logit - its peak) * (reference's logit - logit).
        target: logit of the token to be predicted.
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
        self.apart = torch.zeros(count, dtype=torch.float64)
        self.target = torch.zeros(count, dtype=torch.float64)

    def logits(self, some: slice) -> torch.Tensor:
        """F32 [tokens, rows] of the slab that is loaded."""
        found = self.hidden[some] @ self.rows.T
        return found if self.cap is None else found.div_(self.cap).tanh_().mul_(self.cap)

    def add(self, logits: torch.Tensor, some: slice, start: int, targets: torch.Tensor) -> torch.Tensor:
        """Take a slab's logits into account.

        Returns:
            the factor by which sums over exp(logit - peak) shrink, as the peak has risen; f64 [tokens].
        """
        import torch

        old, top = self.peak[some].clone(), logits.amax(-1).cpu().double()
        new = torch.maximum(old, top)
        self.peak[some] = new
        higher = (top > old).nonzero().squeeze(1)  # few: searching all for the place would take longer than the rest
        self.best[some][higher] = logits[higher.to(logits.device)].argmax(-1).cpu() + start
        wanted = targets[some] - start
        here = ((wanted >= 0) & (wanted < logits.shape[1])).nonzero().squeeze(1)
        places = wanted[here].to(logits.device)
        self.target[some][here] = logits[here.to(logits.device), places].cpu().double()
        return (old - new).exp()

    @property
    def log_total(self) -> torch.Tensor:
        """Logarithm of the sum of exp(logit) over the vocabulary, f64 [scored]."""
        return self.peak + self.total.log()


def score(
    decoders: Sequence[Decoder], hidden: Sequence[F32], targets: Tokens, progress: ProgressCallback, slab: int = SLAB
) -> list[Score]:
    """What models make of tokens.

    Logits and their sums over a slab are f32, sums of slabs f64. Their order does not depend on the number of workers,
    so that a model's divergence from itself is 0, not nearly 0. Nothing is clamped: of models that are all but equal a
    divergence may come out below 0, by the rounding of f32 logits (1e-7 or so).

    Args:
        decoders: the reference's first.
        hidden: f32 [scored, hidden] of each.
        targets: i64 [scored].
        progress: called after every slab of the vocabulary.
        slab: rows at a time.

    Raises:
        InputError: logits are not finite.
    """
    import torch

    device = decoders[0].device
    heads = [_Head(decoder, some, slab) for decoder, some in zip(decoders, hidden, strict=True)]
    wanted = torch.from_numpy(np.ascontiguousarray(targets))
    rows, label = heads[0].tensor.rows, "predictions"
    step = _BLOCK if device.pool else _WIDE_BLOCK
    for start in range(0, rows, slab):
        progress(Progress(label, start, rows, "rows"))
        count = min(slab, rows - start)
        _load(heads, start, count)
        blocks = [slice(at, at + step) for at in range(0, len(targets), step)]
        device.map(partial(_block, heads, start, wanted), blocks)
    progress(Progress(label, rows, rows, "rows"))
    return _scores(heads)


def _load(heads: Sequence[_Head], start: int, count: int) -> None:
    """Decode the slab's rows of every model."""
    import torch

    device = heads[0].decoder.device

    def decode(job: tuple[_Head, int]) -> None:
        head, at = job
        some = weights(head.tensor, start + at, min(_DECODED, count - at), head.decoder.reader)
        head.buffer[at : at + len(some)] = torch.from_numpy(some)

    device.map(decode, [(head, at) for head in heads for at in range(0, count, _DECODED)])
    for head in heads:
        head.rows = head.buffer[:count].to(device.torch_device)


def _block(heads: Sequence[_Head], start: int, targets: torch.Tensor, some: slice) -> None:
    """Take the slab's logits of some tokens into account, of all models."""
    reference = heads[0]
    expected = reference.logits(some)
    shrunk = reference.add(expected, some, start, targets)
    likely = (expected - reference.peak[some, None].float().to(expected.device)).exp_()
    reference.total[some] = reference.total[some] * shrunk + likely.sum(-1).cpu().double()
    for head in heads[1:]:
        logits = head.logits(some)
        factor = head.add(logits, some, start, targets)
        apart = (expected - logits).mul_(likely).sum(-1).cpu().double()
        head.apart[some] = head.apart[some] * shrunk + apart
        here = logits.sub_(head.peak[some, None].float().to(logits.device)).exp_().sum(-1).cpu().double()
        head.total[some] = head.total[some] * factor + here


def _scores(heads: Sequence[_Head]) -> list[Score]:
    reference, found = heads[0], []
    for head in heads:
        surprise = head.log_total - head.target
        kl = head.apart / reference.total + (head.log_total - reference.log_total)
        if not (surprise.isfinite().all() and kl.isfinite().all()):
            raise InputError(f"{head.decoder.checkpoint.location}: logits are not finite", "its weights are damaged")
        found.append(Score(surprise.numpy(), kl.numpy(), (head.best == reference.best).numpy()))
    return found
