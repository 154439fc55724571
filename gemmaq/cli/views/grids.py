"""Grids that the weights of a checkpoint lie on: text and JSON of `gemmaq inspect`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console

if TYPE_CHECKING:
    from gemmaq.checkpoint import Checkpoint
    from gemmaq.methods.lattice import GridFit

_MANY = 4
"""Stacks of experts that are named one by one."""


def facts(checkpoint: Checkpoint, fits: Mapping[str, GridFit]) -> dict[str, Any]:
    """Counts of matrices by verdict and grid, over all, by kind of tensor, and for stacks that are partly on a grid."""
    kinds: dict[str, list[GridFit]] = {}
    for name, fit in fits.items():
        kinds.setdefault(checkpoint.tensors[name].place.kind, []).append(fit)
    fitted = [fit for fit in fits.values() if fit.rule is not None]
    verdicts = Counter(fit.verdict.value for fit in fits.values())
    return {
        "matrices": len(fits),
        "on_grid": verdicts["whole"],
        "partial": verdicts["partial"],
        "rules": dict(Counter(str(fit.rule) for fit in fitted).most_common()),
        "residual": max((fit.residual for fit in fitted), default=None),
        "kinds": {kind: _kind(of_kind) for kind, of_kind in kinds.items()},
        "partial_stacks": [
            {
                "tensor": name,
                "layer": checkpoint.tensors[name].place.layer,
                "kind": checkpoint.tensors[name].place.kind,
                "experts": len(fit.experts),
                "on_grid": sum(expert.on_grid for expert in fit.experts),
            }
            for name, fit in fits.items()
            if fit.experts and fit.verdict == "partial"
        ],
    }


def _kind(fits: Sequence[GridFit]) -> dict[str, Any]:
    """Figures of a kind of tensor; stacks count as their experts."""
    from gemmaq.methods.lattice import together

    matrices = [expert for fit in fits for expert in fit.experts or (fit,)]
    verdicts = Counter(fit.verdict.value for fit in matrices)
    fitted = [fit for fit in matrices if fit.rule is not None]
    off = [fit for fit in matrices if fit.distance]
    return {
        "tensors": len(fits),
        "experts": max(len(fit.experts) for fit in fits) or None,
        **{word: verdicts[word] for word in ("whole", "partial", "none")},
        "rules": dict(Counter(str(fit.rule) for fit in fitted).most_common()),
        "residual": max((fit.residual for fit in fitted), default=None),
        "distance": together(off).distance if off else None,
    }


def fit_facts(fit: GridFit) -> dict[str, Any]:
    """The JSON object of a tensor's fit; experts as a list of verdicts."""
    experts = {"experts": [expert.verdict.value for expert in fit.experts]} if fit.experts else {}
    return {k: v for k, v in asdict(fit).items() if k != "experts"} | {"verdict": fit.verdict.value} | experts


def rows(grid: Mapping[str, Any], qat_name: bool) -> list[tuple[str, str]]:
    """Labelled lines: whether the weights were trained for int4, or come from a quantized file."""
    rules = ", ".join(f"{count} {rule}" for rule, count in grid["rules"].items())
    if grid["on_grid"] or grid["partial"]:
        partly = f", {grid['partial']} more partly" if grid["partial"] else ""
        text = (
            f"{grid['on_grid']} of {grid['matrices']} matrices lie on an int4 grid{partly} ({rules}), "
            f"residual at most {grid['residual']:.2%}"
        )
        stacks = grid["partial_stacks"]
        named = [
            ("", f"layer {s['layer']} {s['kind']}: {s['on_grid']} of {s['experts']} experts on the grid")
            for s in stacks[:_MANY]
        ]
        if len(stacks) > _MANY:
            named.append(("", f"and {len(stacks) - _MANY} more stacks (--tensors lists all)"))
        return [("QAT", text), *named]
    lines = [("grid", f"{rules}: made from a quantized file, not trained for int4")] if rules else []
    if qat_name and grid["matrices"]:
        lines.append(("QAT", "the name says so, but the weights lie on no int4 grid"))
    return lines


def show_kinds(grid: Mapping[str, Any]) -> None:
    """Print a table by kind of tensor, within 80 columns.

    `all`, `part` and `none` count tensors, or experts of stacks, by what of them lies on an int4 grid. `error` is the
    largest distance of weights on a grid from it, `off` the mean one of weights off it from int4 codes.
    """
    columns = ("kind", "count", "grid", "all", "part", "none", "error", "off")
    console.table(
        None,
        columns,
        [
            (
                kind,
                f"{of_kind['tensors']}x{of_kind['experts']}" if of_kind["experts"] else str(of_kind["tensors"]),
                next(iter(of_kind["rules"]), ""),
                *(str(of_kind[word]) for word in ("whole", "partial", "none")),
                "" if of_kind["residual"] is None else f"{of_kind['residual']:.2%}",
                "" if of_kind["distance"] is None else f"{of_kind['distance']:.1%}",
            )
            for kind, of_kind in grid["kinds"].items()
        ],
        left=3,
        spare=("off", "error"),
    )


def cell(grid: Mapping[str, Any] | None) -> str:
    """A tensor's grid in a table."""
    if grid is None:
        return ""
    if grid["rule"] is None:
        return "none"
    text = f"{grid['rule']} {grid['residual']:.2%}"
    if "experts" in grid:
        whole = grid["experts"].count("whole")
        return text if whole == len(grid["experts"]) else f"{whole} of {len(grid['experts'])} {text}"
    return f"{grid['share']:.0%} {text}" if grid["verdict"] == "partial" else text
