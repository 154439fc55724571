"""Results of `gemmaq convert` as text and JSON."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console
from gemmaq.files.quoting import shell

if TYPE_CHECKING:
    from gemmaq.artifact.outcomes import OutcomeCounter
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.convert.layout import Artifact, Variant
    from gemmaq.methods.lattice import GridFit
    from gemmaq.planning.plan import Plan


_MOST_COMMANDS = 3
_LARGE = 0.25
"""Share of a model from which on its embedding is worth a word."""


def warn_rounded(plan: Plan, outcomes: OutcomeCounter) -> None:
    """Warn about tensors whose scales the container could not hold exactly."""
    rounded = [o for o in outcomes.outcomes(plan) if o.how == "rounded"]
    if rounded:
        first = rounded[0]
        console.warn(
            f"{plan.format}: scales of {len(rounded)} tensor{'s' if len(rounded) > 1 else ''} had to be rounded "
            f"({first.name}: {first.rounded:,} of {first.scales:,}; --json lists all); --scales f16 holds FP16 scales"
        )


def _refined(plan: Plan, *, several: bool) -> str:
    """A sentence about norms that were tuned, empty if none were."""
    refine = plan.request.calibration.refine if plan.request.calibration is not None else None
    if refine is None or not refine.kept:
        return ""
    return (
        f"{f'{plan.label} ' if several else ''}norms: KL divergence {refine.before:.4f} -> {refine.after:.4f} nats on "
        f"held-out text, {refine.kept:,} of {refine.steps:,} steps, {refine.seconds:.0f} s"
    )


def report(
    source: str,
    checkpoint: Checkpoint,
    artifacts: Sequence[Artifact],
    *,
    counter: OutcomeCounter | None,
    warnings: Sequence[str],
    seconds: float | None,
) -> dict[str, Any]:
    """The JSON object without its schema."""
    entries = [_entry(artifact, variant, counter) for artifact in artifacts for variant in artifact.variants]
    whole: dict[str, Any] = {
        "source": {"name": checkpoint.name, "location": source, "format": checkpoint.format},
        "artifacts": entries,
        "method": artifacts[0].plans[0].recipe.method,
        "warnings": list(warnings),
    }
    if seconds is not None:
        whole |= {"seconds": round(seconds, 3), "peak_rss_bytes": _peak_rss()}
    return whole


def _entry(artifact: Artifact, variant: Variant, counter: OutcomeCounter | None) -> dict[str, Any]:
    """The entry of a model in one type in the JSON object."""
    from gemmaq.files import sums

    plan = variant.plan
    listed: list[dict[str, Any]] = [{"path": file.name, "bytes": file.size} for file in variant.files]
    entry: dict[str, Any] = {
        "container": plan.format,
        "type": plan.label,
        "path": str(artifact.folder),
        "files": listed,
        "bits_per_weight": round(plan.bits_per_weight, 4),
        "tensors": plan.counts,
    }
    refine = plan.request.calibration.refine if plan.request.calibration is not None else None
    if counter is None:
        return entry
    if refine is not None and refine.kept is not None:
        entry["refine"] = asdict(refine)
    digests = sums.read(artifact.folder) or {}
    for file in listed:
        file["sha256"] = digests[file["path"]]
    outcomes = counter.outcomes(plan)
    return entry | {
        "outcomes": dict(Counter(o.how for o in outcomes)),
        "report": [{"tensor": o.name, "type": o.encoding, "how": o.how} for o in outcomes],
        "rounded": [{"tensor": o.name, "scales": o.scales, "rounded": o.rounded} for o in outcomes if o.rounded],
    }


def grid(fits: Mapping[str, GridFit]) -> list[dict[str, Any]]:
    """The part of the JSON object about grids."""
    from gemmaq.methods.lattice import Verdict

    return [
        {
            "tensor": name,
            "rule": fit.rule,
            "on_grid": fit.on_grid,
            "share": round(fit.share, 4),
            "residual": round(fit.residual, 6),
            "verdict": fit.verdict.value,
            "distance": round(fit.distance, 6),
        }
        | ({"experts": {v.value: fit.experts_with(v) for v in Verdict}} if fit.experts else {})
        for name, fit in fits.items()
    ]


def _peak_rss() -> int:
    """Bytes that this program held resident at most.

    On Linux `ru_maxrss` starts at the parent's peak, so the kernel's own line counts there.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def summarize(
    checkpoint: Checkpoint, artifacts: Sequence[Artifact], fits: Mapping[str, GridFit], seconds: float | None
) -> None:
    """Print files on stdout, all other figures and what comes next on stderr."""
    from gemmaq.methods import METHODS

    for artifact in artifacts:
        for file in artifact.files:
            console.out(f"{artifact.folder / file.name}  {console.size(file.size)} ({file.size:,} bytes)")
    variants = [variant for artifact in artifacts for variant in artifact.variants]
    several = len({variant.plan.label for variant in variants}) > 1
    for variant in variants:
        plan, total = variant.plan, sum(file.size for file in variant.files)
        kinds = ", ".join(f"{count} {name.upper()}" for name, count in plan.counts.items())
        title = f"{plan.format} {plan.label}" if several else plan.format
        large = _embedding(plan)
        console.say(f"{title}: {console.size(total)}, {plan.bits_per_weight:.2f} bits per weight ({kinds}){large}")
    for sentence in filter(None, dict.fromkeys(_refined(each.plan, several=several) for each in variants)):
        console.say(sentence)
    on_grid = [fit for fit in fits.values() if fit.on_grid]
    partial = sum(fit.verdict == "partial" for fit in fits.values())
    if on_grid or partial:
        rules = ", ".join(f"{count} {rule}" for rule, count in Counter(fit.rule for fit in on_grid).most_common())
        rules = f" ({rules})" if rules else ""
        worst = max((fit.residual for fit in on_grid), default=0.0)
        more = f", {partial} lie partly on one" if partial else ""
        restored = sum(METHODS[tensor.choice.method].keeps_grid for tensor in artifacts[0].plans[0].tensors)
        console.say(
            f"QAT grid: {len(on_grid)} of {len(fits)} matrices lie on an int4 grid{rules}, residual at most "
            f"{worst:.2%}{more}; {restored} are put back on it"
        )
    if seconds is None:
        console.say("nothing was written (dry run)")
    else:
        say_next(checkpoint, artifacts, seconds)


def _embedding(plan: Plan) -> str:
    """A clause about an embedding that is much of a model, and of more bits than the rest."""
    from gemmaq.models.roles import Role

    tables = [tensor for tensor in plan.tensors if tensor.source.place.role is Role.EMBEDDING]
    size = sum(tensor.nbytes for tensor in tables)
    weights = sum(tensor.source.rows * tensor.source.columns for tensor in tables)
    if not tables or size < _LARGE * plan.tensor_bytes or 8 * size / weights <= plan.bits_per_weight:
        return ""
    return f"; {console.size(size)} of it is the embedding in {tables[0].encoding.label} (--embedding)"


def say_next(checkpoint: Checkpoint, artifacts: Sequence[Artifact], seconds: float) -> None:
    """Say how long it took, and print the command lines that run what was made."""
    from gemmaq.artifact.card import commands
    from gemmaq.artifact.description import of_plan

    several = len(artifacts) > 1
    console.say(f"{seconds:.1f} s; {'they run' if several else 'it runs'} with:")
    for artifact in artifacts:
        files = [path.name for path in artifact.folder.iterdir()]
        first, *others = (of_plan(variant.plan, checkpoint, repo=None, files=files) for variant in artifact.variants)
        lines = commands(None, first, first, several=bool(others))
        console.say(f"  cd {shell(str(artifact.folder))}")
        for line in lines[: 1 if several else _MOST_COMMANDS]:
            console.say(f"  {line}")
    cards = ", ".join(str(artifact.folder / "README.md") for artifact in artifacts)
    console.say(f"Memory and more: {cards}")
