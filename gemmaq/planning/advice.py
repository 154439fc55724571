"""Notes and warnings about a plan: what it leaves out; losses, second quantization, choices that would keep more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gemmaq.checkpoint import Checkpoint
from gemmaq.methods import METHODS
from gemmaq.methods.lattice import GridFit, Verdict, together
from gemmaq.models.roles import Role
from gemmaq.models.towers_config import senses
from gemmaq.planning.containers import CONTAINERS, with_experts
from gemmaq.planning.plan import Plan, PlannedTensor
from gemmaq.planning.recipe import Recipe

_TABLES = {
    Role.EMBEDDING: ("embedding", "--embedding"),
    Role.HEAD: ("output head", "--embedding"),
    Role.LAYER_EMBEDDING: ("per-layer embedding", "--ple-type"),
}
"""Role of a table -> its name, and the flag that sets its type."""


def remark(checkpoint: Checkpoint, planned: tuple[PlannedTensor, ...], *, with_towers: bool) -> list[str]:
    """Notes on a plan, a sentence each: what the source has and the plan does not, and types that do not fit.

    Args:
        checkpoint: the source.
        planned: tensors of the text model.
        with_towers: whether the towers are written too.
    """
    notes = list(checkpoint.notes)
    if checkpoint.towers_config is not None and not with_towers:
        what, size = senses(checkpoint.towers_config), checkpoint.towers_bytes / 1e9
        notes.append(f"the towers for {what} ({size:.2f} GB) are left out, the result is text-only")
    fallbacks: dict[str, Counter[str]] = {}  # what happened and why -> the widths of rows in which
    for reason in (t.reason for t in planned if t.reason):
        stem, _, columns = reason.rpartition(" ")
        fallbacks.setdefault(stem, Counter())[columns] += 1
    return notes + [f"{_tensors(rows.total())} {stem} {' and '.join(rows)}" for stem, rows in fallbacks.items()]


def kept(checkpoint: Checkpoint, plan: Plan) -> str | None:
    """A sentence that says that a plan chooses no codes, as the source is quantized in its types; None if it does."""
    quantized = [tensor for tensor in plan.tensors if not tensor.encoding.is_float]
    if not quantized or not all(tensor.keeps_codes and not tensor.source.encoding.is_float for tensor in quantized):
        return None
    if checkpoint.format not in CONTAINERS[plan.format].formats:
        return f"the codes of {checkpoint.name} are taken over unchanged"
    copied = f"{checkpoint.name} is {plan.label} already: its codes are copied unchanged"
    return f"{copied}; choose another --quant or --to for something new"


def advise(
    checkpoint: Checkpoint,
    planned: tuple[PlannedTensor, ...],
    *,
    recipe: Recipe,
    container: str,
    fits: Mapping[str, GridFit],
) -> list[str]:
    """Warnings about a plan before it is carried out, a sentence each.

    Args:
        checkpoint: the source.
        planned: tensors of the text model.
        recipe: types and methods that were requested.
        container: name of the container.
        fits: canonical name -> the grid that the weights lie on.
    """
    warnings = list(checkpoint.losses)
    again = [t for t in planned if not t.source.encoding.is_float and not t.encoding.is_float and not t.keeps_codes]
    if again:
        kinds = sorted({t.source.encoding.label for t in again})
        warnings.append(
            f"{_tensors(len(again))} quantized a second time (from {', '.join(kinds)}): "
            "a BF16 checkpoint gives a better result"
        )
    experts = any(t.source.place.role is Role.EXPERTS and not t.encoding.is_float for t in planned)
    if experts and (cost := with_experts(CONTAINERS[container]).remark) is not None:
        warnings.append(cost)
    if (recipe.layer_embedding or recipe.layer_projection) and not checkpoint.config.layer_embedding:
        warnings.append("the model has no per-layer embeddings: types for them change nothing")
    if fits:
        warnings += _grid_warnings(checkpoint, planned, fits)
    return warnings


def _grid_warnings(
    checkpoint: Checkpoint, planned: tuple[PlannedTensor, ...], fits: Mapping[str, GridFit]
) -> list[str]:
    """Warnings about the grids that the weights lie on."""
    warnings = []
    trained = {name for name, fit in fits.items() if fit.verdict is not Verdict.NONE}
    lost = [
        t
        for t in planned
        if t.source.name in trained and not t.encoding.is_float and not METHODS["lattice"].writes(t.encoding)
    ]
    body = [t for t in lost if not t.source.place.role.is_table]
    if body:
        kinds = ", ".join(sorted({t.encoding.label for t in body}))
        warnings.append(f"{_tensors(len(body))} trained for an int4 grid but written as {kinds}: q4_0 keeps the grid")
    else:
        tables = {t.source.place.role for t in lost if fits[t.source.name].on_grid}
        warnings += [
            f"the {table} lies on an int4 grid too: {flag} q4_0 loses nothing and is smaller"
            for role, (table, flag) in _TABLES.items()
            if role in tables
        ]
    kept = [t for t in planned if METHODS[t.choice.method].keeps_grid]
    warnings += _partly([fits[t.source.name] for t in kept if t.source.name in trained])
    forced = [t for t in kept if t.source.name not in trained]
    if forced:
        warnings.append(f"{_tensors(len(forced))} on no int4 grid: method lattice rounds them to nearest")
    others = Counter(fit.rule for fit in fits.values() if fit.rule is not None and fit.verdict is Verdict.NONE)
    for rule, count in others.items():
        warnings.append(f"{_tensors(count)} on the grid {rule}: made from a quantized file, not trained for q4_0")
    if "qat" in checkpoint.name.lower() and not trained:
        warnings.append("the name says QAT, but the weights lie on no int4 grid: treated as an ordinary checkpoint")
    return warnings


def _partly(fits: Sequence[GridFit]) -> list[str]:
    """Warnings about tensors that method lattice can only put partly on their grid."""
    partial = [fit for fit in fits if fit.verdict is Verdict.PARTIAL]
    stacks, matrices = ([fit for fit in partial if bool(fit.experts) is stack] for stack in (True, False))
    warnings = []
    if stacks:
        experts = [expert for fit in stacks for expert in fit.experts]
        for verdict, where, what in (
            (Verdict.NONE, "on no int4 grid", "they are"),
            (Verdict.PARTIAL, "only partly on an int4 grid", "the rest is"),
        ):
            off = [expert for expert in experts if expert.verdict is verdict]
            if off:
                warnings.append(
                    f"{len(off)} of {len(experts)} experts of {_count(len(stacks))} lie {where}: "
                    f"{what} rounded to nearest ({together(off).distance:.1%} away)"
                )
    if matrices:
        whole = together(matrices)
        warnings.append(
            f"{_count(len(matrices))} lie{'s' if len(matrices) == 1 else ''} only partly on an int4 grid: "
            f"{1 - whole.share:.0%} of the blocks are off it and rounded to nearest ({whole.distance:.1%} away)"
        )
    return warnings


def _count(tensors: int) -> str:
    return "1 tensor" if tensors == 1 else f"{tensors} tensors"


def _tensors(count: int) -> str:
    return f"{_count(count)} {'is' if count == 1 else 'are'}"
