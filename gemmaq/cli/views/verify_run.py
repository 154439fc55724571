"""What `gemmaq verify --run` shows of a runtime's run, as text and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gemmaq.cli import console

if TYPE_CHECKING:
    from gemmaq.verify.running import Outcome


def entry(outcome: Outcome) -> dict[str, Any]:
    """Fields of the run in the JSON object; logits and nats, numbers of a run without answer are null."""
    return {
        "runtime": outcome.runtime,
        "version": outcome.version,
        "prompt": outcome.prompt,
        "tokens": list(outcome.tokens),
        "text": outcome.text,
        "agreed": outcome.agreed,
        "shortfall": outcome.shortfall,
        "drift": outcome.drift,
        "margin": outcome.margin,
        "source_same": outcome.source_same,
    }


def show(outcome: Outcome) -> None:
    """Print what the runtime decoded, and how far it is from what gemmaq computes."""
    if not outcome.tokens:
        return
    count = len(outcome.tokens)
    console.out(f"  {outcome.runtime} {outcome.version} continues {outcome.prompt!r}")
    console.out(f"  with {count} tokens: {outcome.text!r}")
    if outcome.agreed:
        apart = "" if outcome.drift is None else f"log-probabilities within {outcome.drift:.2f} of gemmaq's "
        console.out(
            f"  They are what the file's weights say: at most {outcome.shortfall:.2f} logits below the best token, "
            f"{apart}(allowed: {outcome.margin:.2f})"
        )
    if outcome.source_same is not None:
        console.out(f"  The source would choose {outcome.source_same} of the {count}, each after the tokens before it")
