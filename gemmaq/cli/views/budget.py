"""What `gemmaq convert` chose for a budget of bytes, as text and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console
from gemmaq.cli.views import convert as views

if TYPE_CHECKING:
    from gemmaq.budget.check import Measured
    from gemmaq.budget.choose import Choice
    from gemmaq.budget.run import Decision, Done
    from gemmaq.convert.layout import Artifact
    from gemmaq.planning.plan import Plan, PlannedTensor


_REST = "norms and others"


def show(decision: Decision, done: Done | None, *, folder: Callable[[str], Path], seconds: float | None) -> None:
    """Print types, candidates and files on stdout, all other figures on stderr."""
    from gemmaq.budget.goal import described

    source = decision.source
    kept = decision.chosen if done is None else done.kept
    console.table(
        f"{source.checkpoint.name} for {described(source.goal)}: the types of {kept.plan.label}",
        ("kind", "types", "size", "share"),
        [*_types(kept.plan)],
        left=2,
        fold=True,
        spare=("share",),
    )
    measured = done.measured if done is not None and done.measured else ()
    names = [_named(each, "kept" if measured else "chosen", kept) for each in decision.candidates]
    columns = ("candidate", "tensors", "bits/weight", "left", "predicted KL")
    console.table(
        "Mean KL divergence from the source, in nats",
        columns,
        list(map(_candidate, names, decision.candidates)),
        fold=True,
        spare=("tensors", "left"),
    )
    if measured:
        console.table("measured on text that comes with gemmaq", ("text", *names), _by_text(measured), fold=True)
    artifact = done.artifact if done is not None else _laid_out(decision, folder)
    for file in artifact.files:
        console.out(f"{artifact.folder / file.name}  {console.size(file.size)} ({file.size:,} bytes)")
    for sentence in _sentences(decision, done):
        console.say(sentence)
    if seconds is None:
        console.say("nothing was written (dry run)")
    else:
        views.say_next(source.checkpoint, [artifact], seconds)


def _types(plan: Plan) -> list[tuple[str, str, str, str]]:
    """A row for each kind of tensor: its types with the number of tensors in each, its bytes, their share."""
    kinds: dict[str, list[PlannedTensor]] = {}
    for tensor in plan.tensors:
        place = tensor.source.place
        kind = (place.kind or place.role.value) if place.role.is_matrix else _REST
        kinds.setdefault(kind, []).append(tensor)
    rows = []
    for kind, tensors in sorted(kinds.items(), key=lambda item: item[0] == _REST):
        counts = Counter(tensor.encoding.label for tensor in tensors).most_common()
        size = sum(tensor.nbytes for tensor in tensors)
        named = ", ".join(label if len(tensors) == 1 else f"{number} {label}" for label, number in counts)
        rows.append((kind, named, console.size(size), f"{size / plan.tensor_bytes:.1%}"))
    return rows


def _candidate(name: str, each: Choice) -> tuple[str, ...]:
    from gemmaq.evaluate.result import format_kl

    return (
        name,
        console.size(each.plan.tensor_bytes),
        f"{each.plan.bits_per_weight:.2f}",
        console.size(each.room),
        "?" if each.predicted is None else format_kl(each.predicted),
    )


def _named(each: Choice, word: str, kept: Choice) -> str:
    return f"{_name(each)} ({word})" if each is kept else _name(each)


def _by_text(measured: Sequence[Measured]) -> list[tuple[str, ...]]:
    """A row for each kind of text with the mean KL of every candidate, then all kinds, and how often tokens agree."""
    from gemmaq.evaluate.result import format_kl

    rows = [(kind, *(format_kl(each.scores[kind].kl_mean) for each in measured)) for kind in measured[0].scores]
    together = (f"{format_kl(each.kl)} ± {format_kl(each.stderr)}" for each in measured)
    return [*rows, ("all kinds alike", *together), ("top-1", *(f"{each.top1:.2%}" for each in measured))]


def _name(each: Choice) -> str:
    """Label of a candidate, and the type of its embedding if that is not the container's own choice."""
    recipe = each.plan.recipe
    return each.plan.label + (f", {recipe.embedding.label} embedding" if recipe.embedding and not recipe.name else "")


def _sentences(decision: Decision, done: Done | None) -> list[str]:
    """What the figures mean, in sentences."""
    if decision.uniform is None:
        if decision.chosen.plan.recipe.name is None:
            return [f"no mixture is predicted to lose less than {_name(decision.chosen)}"]
        return ["no single type is small enough to compare with"]
    if done is None or not done.measured:
        return [f"{_name(decision.uniform)} is the best single type, or mixture with a name, that is small enough"]
    ours, theirs = (measured.kl for measured in done.measured)
    if done.kept is decision.uniform:
        return [f"{_name(decision.uniform)} was kept: measured, it loses less than the types chosen by prediction"]
    return [f"the chosen types lose {1 - ours / theirs:.0%} less than {_name(decision.uniform)}" if theirs else ""]


def _laid_out(decision: Decision, folder: Callable[[str], Path]) -> Artifact:
    """The files of the chosen types, without writing them."""
    from gemmaq.convert.layout import lay_out

    plan = decision.chosen.plan
    (artifact,) = lay_out(decision.source.checkpoint, [plan], folder(plan.label))
    return artifact


def document(
    name: str,
    decision: Decision,
    done: Done | None,
    *,
    folder: Callable[[str], Path],
    warnings: Sequence[str],
    seconds: float | None,
) -> dict[str, Any]:
    """The JSON object without its schema: that of any conversion, and `budget`."""
    from gemmaq.budget.goal import described

    source = decision.source
    artifact = done.artifact if done is not None else _laid_out(decision, folder)
    whole = views.report(
        name,
        source.checkpoint,
        [artifact],
        counter=done.outcomes if done is not None else None,
        warnings=warnings,
        seconds=seconds,
    )
    kept = decision.chosen if done is None else done.kept
    measured: Sequence[Measured | None] = done.measured if done is not None and done.measured else ()
    candidates = [
        _entry(each, measured[at] if measured else None, kept=each is kept)
        for at, each in enumerate(decision.candidates)
    ]
    types = {tensor.source.name: tensor.encoding.name for tensor in kept.plan.tensors}
    return whole | {
        "budget": {
            "target": described(source.goal),
            "sensitivities": source.sensitivities.digest,
            "candidates": candidates,
            "types": types,
        }
    }


def _entry(each: Choice, measured: Measured | None, *, kept: bool) -> Mapping[str, Any]:
    recipe = each.plan.recipe
    entry: dict[str, Any] = {
        "type": each.plan.label,
        "embedding": recipe.embedding.name if recipe.embedding else None,
        "tensor_bytes": each.plan.tensor_bytes,
        "bits_per_weight": round(each.plan.bits_per_weight, 4),
        "left_bytes": each.room,
        "predicted_kl": each.predicted,
        "kept": kept,
    }
    if measured is None:
        return entry
    kinds = {kind: {"kl": score.kl_mean, "stderr": score.kl_stderr} for kind, score in measured.scores.items()}
    return entry | {"kl": {"mean": measured.kl, "stderr": measured.stderr}, "top1": measured.top1, "by_kind": kinds}
