"""What a measurement of sensitivities will take, before it is begun."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gemmaq.calibration import gptq, memory, sensitivity_layers
from gemmaq.calibration.resources import Resources
from gemmaq.calibration.sensitivity import Parts
from gemmaq.calibration.sensitivity_errors import fitting
from gemmaq.calibration.sensitivity_groups import Settings, Variant, active, groups
from gemmaq.calibration.sensitivity_head import LIKELIEST
from gemmaq.calibration.sensitivity_work import bytes_kept
from gemmaq.checkpoint import Checkpoint
from gemmaq.inference.batch import held

_GATHERING = 2.0
"""What a sequence that codes are solved for costs in a layer, where one of a variant costs 1."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a measurement takes.

    Attributes:
        groups: number of groups.
        coarse: whether they are kinds of matrices in bands of layers.
        tokens: tokens that are scored.
        calibrating: tokens that codes are solved for.
        passes: passes of a sequence through a layer.
        memory: bytes of memory, besides torch.
        disk: bytes on disk until it is done.
        seconds: time, by the rate of one layer; None if the weights are not here.
    """

    groups: int
    coarse: bool
    tokens: int
    calibrating: int
    passes: int
    memory: int
    disk: int
    seconds: float | None


def forecast(
    checkpoint: Checkpoint,
    text: Parts,
    settings: Settings,
    *,
    resources: Resources,
    types: Sequence[str] | None = None,
) -> Forecast:
    """Say what a measurement will take.

    Args:
        checkpoint: the model.
        text: the text in two parts.
        settings: how to measure.
        resources: where to compute.
        types: names of the types whose losses are asked for, None for all.

    Raises:
        InputError: the model cannot be read.
    """
    coarse, config = settings.is_coarse(checkpoint), checkpoint.config
    variants, layers = groups(checkpoint, coarse=coarse), len(config.layers)
    widest = max(tensor.elements for tensor in checkpoint.matrices.values())
    judged = text.scored * min(LIKELIEST, config.vocab_size) + 3 * LIKELIEST * config.hidden_size
    everything = text.probed.size + text.calibrating.size
    kept = config.hidden_size + held(config, text.probed.size) // text.probed.size
    return Forecast(
        groups=len(variants),
        coarse=coarse,
        tokens=text.scored,
        calibrating=text.calibrating.size,
        passes=len(text.probed) * sum(layers - variant.first for variant in variants),
        memory=memory(config, everything) + 4 * (widest + judged),
        disk=bytes_kept(len(variants), (text.probed.size, everything), kept),
        seconds=_seconds(checkpoint, text, variants, resources, types) if checkpoint.weights_here else None,
    )


def _seconds(
    checkpoint: Checkpoint,
    text: Parts,
    variants: Sequence[Variant],
    resources: Resources,
    types: Sequence[str] | None,
) -> float:
    """Time by that of a sequence through the first layer, and of one of its matrices in all types."""
    from gemmaq.inference.decoder import decoder
    from gemmaq.inference.device import open_device

    matrices = [variant for variant in variants if not variant.is_table]
    with open_device(resources.device, resources.threads) as device, decoder(checkpoint, device) as model:
        module, count = model.layer(0), resources.threads if device.pool else 1
        (batch, *_), tensor = model.embed(text.probed[:1]), checkpoint.tensors[matrices[0].names[0]]

        def forward(_: int) -> None:
            model.forward(module, 0, replace(batch))

        device.map(forward, range(count))
        started = time.monotonic()
        device.map(forward, range(2 * count))
        one = (time.monotonic() - started) / (2 * count)
        _, cases = sensitivity_layers.through(
            model, 0, module, batches=[replace(batch)], calibrating=[replace(batch)], tensors=[tensor]
        )
        encodings = fitting([tensor.columns], types)
        for _ in range(2):  # the first time loops are compiled
            started = time.monotonic()
            sensitivity_layers.errors_of(model, cases[tensor.name], encodings, settings=gptq.Settings(), once=True)
        errors = time.monotonic() - started
    work = active(checkpoint)
    each = [layer / work[0] for layer in work]
    of_variants = sum(sum(each[variant.first :]) for variant in variants) * len(text.probed)
    columns = sum(checkpoint.tensors[variant.names[0]].columns for variant in matrices)
    gathered = sum(each) * (_GATHERING * len(text.calibrating) + len(text.probed))
    return one * (of_variants + gathered) + errors * columns / tensor.columns
