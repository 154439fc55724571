"""GPTQ of the head: the table whose rows the last states are multiplied with, a slab of rows at a time.

A tied head is the embedding too: its rows are looked up, where every error counts alike. So the Hessian of the states
gets a multiple of the unit matrix, which stands for the look-up. On the real 270M with layers in BF16, mean KL of a
Q5_0 embedding is a third of that of rounding, on text that it was calibrated on and on other
(tests/benchmarks/methods_270m.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from gemmaq.calibration import gptq
from gemmaq.calibration.activations import add_products, mirror
from gemmaq.calibration.store import Problem, Store, by_blocks
from gemmaq.checkpoint import Tensor
from gemmaq.errors import InputError
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    import torch

    from gemmaq.inference.batch import Batch
    from gemmaq.inference.decoder import Decoder

LOOKED_UP = 0.3
"""What is added to the diagonal of a tied head's Hessian, as a share of its mean."""


def quantize(
    decoder: Decoder,
    batches: Sequence[Batch],
    problems: Sequence[Problem],
    *,
    settings: gptq.Settings,
    store: Store,
    progress: ProgressCallback,
) -> dict[Problem, Tensor]:
    """Choose the codes of the head.

    Args:
        decoder: the model.
        batches: activations behind its last layer.
        problems: what to solve: the head in one type or several.
        settings: settings of GPTQ.
        store: keeps codes and scales on disk.
        progress: called after every slab.

    Returns:
        Codes and scales in the store.

    Raises:
        InputError: the Hessian of the states cannot be inverted, or the head holds NaN or infinite weights.
    """
    if not problems:
        return {}
    source = problems[0].source
    hessian = _hessian(decoder, batches)
    if decoder.checkpoint.head is None:
        hessian.diagonal().add_(LOOKED_UP * hessian.diagonal().mean())
    solved: dict[Problem, Tensor] = {}
    for blocks, same in by_blocks(problems).items():
        try:
            inverse = gptq.invert(hessian, settings, blocks=blocks, device=decoder.device)
        except InputError as error:
            raise error.at(path=source.name) from error
        for problem in same:
            for first, W in decoder.read_slabs(source):
                run = partial(gptq.quantize, portable=problem.portable, sweeps=settings.sweeps)
                store.append(problem, run(W, inverse, problem.encoding, device=decoder.device))
                progress(Progress("calibrating the head", first + len(W), source.rows, "rows"))
            solved[problem] = store.tensor(problem)
        del inverse  # as large as the Hessian
    return solved


def _hessian(decoder: Decoder, batches: Sequence[Batch]) -> torch.Tensor:
    """X^T X of the states X behind the final norm, f32 [hidden, hidden]."""
    import torch

    hidden = decoder.checkpoint.config.hidden_size
    hessian = torch.zeros(hidden, hidden, device=decoder.device.torch_device)
    for batch in batches:
        add_products(hessian, decoder.normed(batch.hidden).reshape(-1, hidden), decoder)
    return mirror(hessian)
