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
from gemmaq.calibration.activations import mirror
from gemmaq.calibration.hessians import add_products, chained, delivered
from gemmaq.calibration.store import Problem, Store, by_blocks, packed
from gemmaq.checkpoint import Tensor
from gemmaq.checkpoint.rows import slabs
from gemmaq.errors import InputError
from gemmaq.inference.decoder import SLAB
from gemmaq.inference.peers import ALONE, Peers
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
    peers: Peers = ALONE,
) -> dict[Problem, Tensor]:
    """Choose the codes of the head.

    Args:
        decoder: the model.
        batches: this process's activations behind its last layer.
        problems: what to solve: the head in one type or several.
        settings: settings of GPTQ.
        store: keeps codes and scales on disk, in the main process.
        progress: called after every slab.
        peers: the processes that share the slabs.

    Returns:
        Codes and scales in the store, in the main process; in the others nothing.

    Raises:
        InputError: the Hessian of the states cannot be inverted, or the head holds NaN or infinite weights.
    """
    if not problems:
        return {}
    source = problems[0].source
    hessian = _hessian(decoder, batches, peers)
    if decoder.checkpoint.head is None:
        hessian.diagonal().add_(LOOKED_UP * hessian.diagonal().mean())
    solved: dict[Problem, Tensor] = {}
    for blocks, same in by_blocks(problems).items():
        try:
            inverse = gptq.invert(hessian, settings, blocks=blocks, device=decoder.device)
        except InputError as error:
            raise error.at(path=source.name) from error
        for problem in same:
            run = partial(gptq.quantize, inverse=inverse, encoding=problem.encoding, portable=problem.portable)
            rows = decoder.read_slabs(source, peers.rank, peers.size)
            done = 0
            for _ in range(0, sum(1 for _ in slabs(source, SLAB)), peers.size):
                _, W = next(rows, (0, None))
                made = [] if W is None else packed(problem, run(W, sweeps=settings.sweeps, device=decoder.device))
                for arrays in filter(None, peers.gather(made)):
                    store.append(problem, arrays)
                    done += len(arrays[0])
                progress(Progress("calibrating the head", done, source.rows, "rows"))
            if peers.main:
                solved[problem] = store.tensor(problem)
        del inverse  # as large as the Hessian
    return solved


def _hessian(decoder: Decoder, batches: Sequence[Batch], peers: Peers) -> torch.Tensor:
    """X^T X of the states X of all processes behind the final norm, f32 [hidden, hidden]."""
    import torch

    hidden, device = decoder.checkpoint.config.hidden_size, decoder.device
    states = (decoder.normed(batch.hidden).reshape(-1, hidden) for batch in batches)
    if peers.size > 1:
        chain = chained([*states], hidden, device=device, peers=peers)
        whole = delivered(chain, hidden, range(peers.size), peers)
        assert whole is not None, "every process gets it"
        return mirror(whole)
    hessian = torch.zeros(hidden, hidden, device=device.torch_device)
    for inputs in states:
        add_products(hessian, inputs, device)
    return mirror(hessian)
