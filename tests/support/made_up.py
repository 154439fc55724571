"""Made-up sensitivities: a loss for every tensor in every type of a container, that falls with its bits."""

from __future__ import annotations

import numpy as np

from gemmaq.budget.options import candidates
from gemmaq.checkpoint import Checkpoint
from gemmaq.planning.sensitivities import NEAREST, Group, Sensitivities, fingerprint


def sensitivities(
    checkpoint: Checkpoint, container: str = "gguf", *, seed: int = 0, real: bool = False
) -> Sensitivities:
    """A group for every matrix and table; with `real`, the fingerprint is that of the weights."""
    random = np.random.default_rng(seed)
    groups = []
    for tensor in checkpoint.tensors.values():
        if not (tensor.place.role.is_layer_matrix or tensor.place.role.is_table):
            continue
        whole = random.lognormal(-6, 1)
        losses = {}
        for encoding in candidates(container):
            bits = encoding.row_bytes(4096) * 8 / 4096
            if not encoding.is_float:
                losses[encoding.name] = float(whole * 4 ** (4.5 - bits))
        groups.append(
            Group((tensor.name,), {NEAREST: losses, "gptq": {k: v / 4 for k, v in losses.items()}}, ("q4_0",))
        )
    digest = fingerprint(checkpoint) if real else "0" * 64
    return Sensitivities(checkpoint.name, digest, ("a.txt",), f"{seed:064}", 1024, 512, tuple(groups))
