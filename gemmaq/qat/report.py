"""What lies beside trained weights: qat.json tells how they came about, loss.svg shows it. No time, host or path."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gemmaq import __version__
from gemmaq.containers.hf_folder import pretty
from gemmaq.qat import grids

if TYPE_CHECKING:
    from gemmaq.qat.data import Data
    from gemmaq.qat.run import Order, Outcome

NAME = "qat.json"
CURVE = "loss.svg"
SCHEMA = "gemmaq.qat/1"


def document(order: Order, data: Data, outcome: Outcome) -> dict[str, Any]:
    """The record of a training."""
    settings = asdict(order.settings) | {"steps": outcome.state.step}
    return {
        "schema": SCHEMA,
        "gemmaq": __version__,
        "source": {"name": order.source.name, "fingerprint": outcome.state.identity["source"]},
        "start": {"name": order.start.name, "fingerprint": outcome.state.identity["start"]} if order.start else None,
        "dithered": dict(Counter(outcome.lattices.values()).most_common()),
        "grid": grids.find(order.settings.grid).says,
        "settings": settings,
        "steps_changed": outcome.state.changes,
        "text": {"files": list(data.names), "sha256": data.digest, "sequences": len(data.train)},
        "held_out": {
            "files": list(data.held_out_names),
            "sha256": data.held_out_digest,
            "sequences": len(data.held_out),
        },
        "evaluation": {"before": outcome.before, "after": outcome.after.document()},
        "losses": outcome.state.losses,
    }


def files(order: Order, data: Data, outcome: Outcome) -> dict[str, bytes]:
    """The record, and the curve where it can be drawn."""
    made = {NAME: pretty(document(order, data, outcome))}
    if can_draw() and outcome.state.losses:
        made[CURVE] = curve(outcome.state.losses)
    return made


def can_draw() -> bool:
    """Whether matplotlib is there."""
    return find_spec("matplotlib") is not None


def curve(losses: list[float]) -> bytes:
    """Losses of all steps and their running mean, as SVG; the same bytes for the same losses."""
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
        axes.set_title("Divergence from the teacher while training", loc="left", fontweight="bold", pad=12)
        axes.set_xlabel("step")
        axes.set_ylabel("KL, nats per token")
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
        axes.legend(frameon=False)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
