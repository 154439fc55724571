"""The files beside trained weights: qat.json records the training, loss.svg draws it. No time, host or path."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gemmaq import __version__
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
    if can_draw() and outcome.state.losses:
        contents[CURVE] = curve(outcome.state.losses, job.block_wise)
    return contents


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def curve(losses: list[float], block_wise: bool = False) -> bytes:
    """Loss of every step and its running mean, as SVG; the same bytes for the same losses.

    Args:
        losses: loss of every step, of all layers in turn if block-wise.
        block_wise: whether a loss is the relative squared error of a layer, not a divergence.
    """
    import io

    import numpy as np
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: Any = {"svg.hashsalt": "gemmaq", "font.family": "DejaVu Sans", "font.size": 11}
    width = max(1, len(losses) // 20)
    steps = np.arange(1, len(losses) + 1)
    smooth = np.convolve(losses, np.ones(width) / width, "valid")
    with rc_context(settings):
        figure = Figure(figsize=(10, 5), dpi=120, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.plot(steps, losses, color="#56B4E9", linewidth=1, label="loss of a step")
        axes.plot(steps[width - 1 :], smooth, color="#0072B2", linewidth=2.2, label=f"mean of {width} steps")
        axes.set_ylim(0, float(np.quantile(losses, 0.99)) * 1.1 or 1.0)
        title = "Error of each layer while training" if block_wise else "Divergence from the teacher while training"
        axes.set_title(title, loc="left", fontweight="bold", pad=12)
        axes.set_xlabel("step")
        axes.set_ylabel("squared error, relative" if block_wise else "KL, nats per token")
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
        axes.legend(frameon=False)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
