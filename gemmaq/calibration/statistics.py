"""Sums of the squared inputs of every matrix of the layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gemmaq.calibration.activations import gather
from gemmaq.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from gemmaq.inference.decoder import Decoder
    from gemmaq.inference.documents import Tokens

Sums = Mapping[str, "NDArray[np.float64]"]
"""Canonical name -> sum of the squared inputs of every column, f64 [columns]."""


def squares(decoder: Decoder, tokens: Tokens, progress: ProgressCallback) -> Sums:
    """Send sequences through the model and add up the squared inputs of its matrices.

    Args:
        decoder: the model.
        tokens: i64 [sequences, length].
        progress: called after every layer.

    Raises:
        InputError: activations are not finite.
    """
    names = decoder.checkpoint.family.names
    hidden, squared = decoder.embed(tokens), {}
    for index in range(decoder.layers):
        module = decoder.layer(index)
        sums: dict[str, NDArray[np.float64]] = {}

        def add(site: str, inputs: torch.Tensor, sums: dict[str, NDArray[np.float64]] = sums) -> None:
            sums[site] = sums.get(site, 0.0) + inputs.double().square().sum(0).cpu().numpy()

        hidden = gather(decoder, index, hidden, module=module, take=add)
        for site, parts in names.input_sites(decoder.checkpoint.config, index).items():
            for part in parts:
                squared[names.in_layer(index, part)] = sums[site]
        progress(Progress("gathering statistics", index + 1, decoder.layers, "layers"))
    return squared
