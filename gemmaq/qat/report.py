"""The files beside trained weights: qat.json records the training, loss.svg draws it. No time, host or path."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gemmaq import __version__
from gemmaq.charts import Labels, lines
from gemmaq.containers.hf_folder import pretty
from gemmaq.qat import grids

if TYPE_CHECKING:
    from gemmaq.qat.data import TokenDataset
    from gemmaq.qat.job import Outcome, TrainingJob

NAME = "qat.json"
CURVE = "loss.svg"
SCHEMA = "gemmaq.qat/1"


def document(job: TrainingJob, data: TokenDataset, outcome: Outcome) -> dict[str, Any]:
    """The record of a training, as JSON values."""
    start = {"name": job.start.name, "fingerprint": outcome.state.identity["start"]} if job.start else None
    return {
        "schema": SCHEMA,
        "gemmaq": __version__,
        "source": {"name": job.source.name, "fingerprint": outcome.state.identity["source"]},
        "start": start,
        "dithered": dict(Counter(outcome.lattices.values()).most_common()),
        "grid": grids.find(job.settings.grid).description,
        "settings": {"steps": outcome.steps, **asdict(job.settings)},
        "steps_changed": outcome.state.changes,
        "text": {"files": list(data.names), "sha256": data.digest, "sequences": len(data.train)},
        "held_out": {
            "files": list(data.held_out_names),
            "sha256": data.held_out_digest,
            "sequences": len(data.held_out),
        },
        "evaluation": {"before": outcome.state.before, "after": outcome.after.document()},
        "losses": outcome.state.losses,
    }


def files(job: TrainingJob, data: TokenDataset, outcome: Outcome) -> dict[str, bytes]:
    """Names and contents: the record, and the loss curve if matplotlib is installed."""
    contents = {NAME: pretty(document(job, data, outcome))}
    if lines.can_draw() and outcome.state.losses:
        contents[CURVE] = curve(outcome.state.losses, job.block_wise)
    return contents


def curve(losses: list[float], block_wise: bool = False) -> bytes:
    """Draw the loss of every step and its running mean as SVG; the same bytes for the same losses.

    Args:
        losses: loss of every step, of all layers in turn if block-wise.
        block_wise: whether a loss is the relative squared error of a layer, not a divergence.
    """
    import numpy as np

    width = max(1, len(losses) // 20)
    mean = np.convolve(losses, np.ones(width) / width, "valid").tolist()
    title = "Error of each layer while training" if block_wise else "Divergence from the teacher while training"
    labels = Labels(title, "step", "squared error, relative" if block_wise else "KL, nats per token")
    plots = [
        lines.Line(f"mean of {width} steps", tuple(enumerate(mean, width))),
        lines.Line("loss of a step", tuple(enumerate(losses, 1)), faint=True),
    ]
    return lines.draw(".svg", labels, plots, top=float(np.quantile(losses, 0.99)))
