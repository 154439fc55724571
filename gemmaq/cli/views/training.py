"""What a training shows: its forecast, the progress of its steps, its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gemmaq.cli import console
from gemmaq.cli.console import Output
from gemmaq.files.quoting import shell
from gemmaq.progress import Progress

if TYPE_CHECKING:
    from gemmaq.qat.job import Outcome, StepMetrics, TrainingJob


def forecast(job: TrainingJob, facts: dict[str, Any], output: Output) -> None:
    """Print what would be trained and written."""
    from gemmaq.qat.forecast import lines

    def show() -> None:
        for line in lines(facts, console.size, console.duration, resumed=job.resume):
            console.out(line)
        console.say("nothing was trained or written (dry run)")

    output.emit(lambda: facts, essential=lambda: [str(job.out)], show=show)


def report(job: TrainingJob, outcome: Outcome, output: Output) -> None:
    """Print the result."""
    from gemmaq.charts.lines import can_draw

    before, after = outcome.state.before, outcome.after.document()

    def show() -> None:
        console.out(str(job.out))
        tokens, teacher = before["tokens"], before["teacher_perplexity"]
        console.say(
            f"{outcome.steps} steps; on {tokens:,.0f} held-out tokens, perplexity of the teacher {teacher:.2f}:"
        )
        for name, metrics in (("before", before), ("after", after)):
            perplexity, divergence, top1 = metrics["perplexity"], metrics["kl"], metrics["top1"]
            console.say(f"  {name:<7}perplexity {perplexity:.2f}, KL {divergence:.4f}, top-1 {top1:.1%}")
        if not can_draw():
            console.say("no loss.svg: drawing needs matplotlib, pip install matplotlib")
        console.say(f"next: gemmaq convert {shell(str(job.out))} --to gguf")

    output.emit(
        lambda: {"path": str(job.out), "steps": outcome.steps, "evaluation": {"before": before, "after": after}},
        essential=lambda: [str(job.out)],
        show=show,
        made=True,
    )


def step(metrics: StepMetrics) -> Progress:
    """Progress of training, with the loss and what is known of speed and time left as its note."""
    note = f"loss {metrics.loss:.4f}"
    if metrics.rate is not None:
        note += f"  {metrics.rate:,.0f} tokens/s"
    if metrics.left is not None:
        note += f"  {console.duration(metrics.left)} left"
    return Progress("training", metrics.step, metrics.steps, note=note)
