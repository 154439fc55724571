"""What a training shows: its forecast, the progress of its steps, its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console
from gemmaq.progress import Progress

if TYPE_CHECKING:
    from gemmaq.qat.job import Outcome, StepMetrics, TrainingJob


@dataclass(frozen=True, slots=True)
class Output:
    """What the command prints.

    Attributes:
        as_json: one JSON object.
        quiet: nothing but the folder's path.
        main: whether this process prints at all.
    """

    as_json: bool
    quiet: bool
    main: bool = True

    @property
    def silent(self) -> bool:
        """Whether nothing goes to stderr."""
        return self.as_json or self.quiet or not self.main


def forecast(job: TrainingJob, facts: dict[str, Any], shown: Output) -> None:
    """Print what would be trained and written."""
    from gemmaq.qat.forecast import lines

    if shown.as_json:
        console.emit_json("qat", facts)
    elif shown.quiet:
        console.out(str(job.out))
    else:
        for line in lines(facts, console.size):
            console.out(line)
        console.say("nothing was trained or written (dry run)")


def report(job: TrainingJob, outcome: Outcome, shown: Output) -> None:
    """Print the result."""
    from gemmaq.qat.report import can_draw

    before, after = outcome.state.before, outcome.after.document()
    if shown.as_json:
        evaluation = {"before": before, "after": after}
        console.emit_json("qat", {"path": str(job.out), "steps": outcome.steps, "evaluation": evaluation})
        return
    console.out(str(job.out))
    if shown.quiet:
        return
    tokens, teacher = before["tokens"], before["teacher_perplexity"]
    console.say(f"{outcome.steps} steps; on {tokens:,.0f} held-out tokens, perplexity of the teacher {teacher:.2f}:")
    for name, metrics in (("before", before), ("after", after)):
        perplexity, divergence, top1 = metrics["perplexity"], metrics["kl"], metrics["top1"]
        console.say(f"  {name:<7}perplexity {perplexity:.2f}, KL {divergence:.4f}, top-1 {top1:.1%}")
    if not can_draw():
        console.say("no loss.svg: drawing needs matplotlib, pip install 'gemmaq[plot]'")
    console.say(f"next: gemmaq convert {job.out} --to gguf")


def step(metrics: StepMetrics) -> Progress:
    """Progress of training, with the loss and what is known of speed and time left as its note."""
    note = f"loss {metrics.loss:.4f}"
    if metrics.rate is not None:
        note += f"  {metrics.rate:,.0f} tokens/s"
    if metrics.left is not None:
        note += f"  {console.duration(metrics.left)} left"
    return Progress("training", metrics.step, metrics.steps, note=note)
