"""Results of `gemmaq verify` as text and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console
from gemmaq.cli.views import verify_run

if TYPE_CHECKING:
    from gemmaq.convert.compare import Compared
    from gemmaq.verify.against import Comparison
    from gemmaq.verify.examine import Report
    from gemmaq.verify.running import Outcome

_WORST = 5
_SHOWN = 20


def problems(report: Report, comparison: Comparison | None, outcome: Outcome | None = None) -> list[str]:
    """All problems of an artifact."""
    differences = [problem for part in (comparison, outcome) if part is not None for problem in part.problems]
    prefix = f"{report.name}: " if report.name else ""
    return [*report.problems, *(prefix + difference for difference in differences)]


def entry(report: Report, comparison: Comparison | None, outcome: Outcome | None = None) -> dict[str, Any]:
    """Entry of an artifact in the JSON object."""
    result: dict[str, Any] = {
        "path": str(report.path),
        "format": report.model.format if report.model else None,
        "gemmaq": report.record.version if report.record else None,
        "sums": report.listed is not None,
        "recipe": report.record is not None,
        "files": [{"path": name, "sha256": digest} for name, digest in report.files.items()],
        "problems": problems(report, comparison, outcome),
        "notes": [note for part in (comparison, outcome) if part is not None for note in part.notes],
    }
    if outcome is not None:
        result["run"] = verify_run.entry(outcome)
    if comparison is None:
        return result
    from gemmaq.convert.compare import by_kind

    return result | {
        "kinds": [
            {
                "kind": kind,
                "tensors": len(tensors),
                "error": _number(_error(tensors)),
                "worst": _number(max(tensor.error for tensor in tensors)),
                "equal": None if tensors[0].equal is None else sum(bool(tensor.equal) for tensor in tensors),
            }
            for kind, tensors in by_kind(comparison.tensors).items()
        ],
        "tensors": [
            {
                "name": tensor.name,
                "kind": tensor.kind,
                "type": tensor.encoding,
                "error": _number(tensor.error),
                "equal": tensor.equal,
                "differing": tensor.differing,
            }
            for tensor in comparison.tensors
        ],
    }


def first(problems: Sequence[str]) -> Iterator[str]:
    """The first problems, and how many more there are."""
    yield from problems[:_SHOWN]
    if len(problems) > _SHOWN:
        yield f"and {len(problems) - _SHOWN} more (--json lists all)"


def show(report: Report, comparison: Comparison | None, outcome: Outcome | None = None) -> None:
    """Print the result for an artifact."""
    lines = problems(report, comparison, outcome)
    for line in first(lines):
        console.out(line)
    if comparison is not None and comparison.tensors:
        _table(report, comparison)
    if not lines:
        console.out(f"{report.path}: {_summary(report, comparison)}")
    if outcome is not None:
        verify_run.show(outcome)


def _summary(report: Report, comparison: Comparison | None) -> str:
    """One line about the checks of a good artifact."""
    from gemmaq.artifact.provenance import is_of_adapter

    text = f"{_listed(['headers', 'tokenizer', *_beside(report)])} are OK"
    if report.listed is not None:
        files = f"{report.listed} files are" if report.listed != 1 else "the file is"
        if is_of_adapter(report.path):
            return f"{files} what SHA256SUMS says; the weights of an adapter alone are not looked at"
        text = f"{files} what SHA256SUMS says, {text}"
    if report.record is None:
        if report.listed is None:
            return f"{text}; without SHA256SUMS and gemmaq.json nothing else can be checked"
        return f"{text}; it has no gemmaq.json that says how it was made"
    if comparison is not None:
        count, checked = len(comparison.tensors), sum(tensor.equal is not None for tensor in comparison.tensors)
        number = f"all {count}" if checked == count else f"{checked} of {count}"
        is_left = report.has_drafter and not any(tensor.kind == "drafter" for tensor in comparison.tensors)
        but = " but those of the drafter" if is_left else ""
        text += f", {number} tensors{but} are what gemmaq makes of the source"
    return text


def _beside(report: Report) -> list[str]:
    """What was checked of the files beside a GGUF model."""
    model = report.model
    if model is None or model.format != "gguf":
        return []
    return [*(["mmproj file"] if model.towers else []), *(["drafter"] if report.has_drafter else [])]


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _table(report: Report, comparison: Comparison) -> None:
    from gemmaq.convert.compare import by_kind

    rows = []
    for kind, tensors in by_kind(comparison.tensors).items():
        types = ", ".join(dict.fromkeys(tensor.encoding.upper() for tensor in tensors))
        most = max(tensor.error for tensor in tensors)
        equal = "" if tensors[0].equal is None else f"{sum(bool(t.equal) for t in tensors)} of {len(tensors)}"
        rows.append((kind, types, str(len(tensors)), _percent(_error(tensors)), _percent(most), equal))
    title = f"{report.path}: relative RMS error against the source"
    console.table(
        title,
        ("kind", "types", "tensors", "error", "worst", "bytes equal"),
        rows,
        left=2,
        fold=True,
        spare=("tensors", "worst"),
    )
    worst = sorted(comparison.tensors, key=lambda tensor: (-tensor.error, tensor.name))[:_WORST]
    lines = [(tensor.name, tensor.encoding.upper(), _percent(tensor.error)) for tensor in worst]
    console.table(None, ("worst tensors", "type", "error"), lines, left=2, fold=True)


def _error(tensors: Sequence[Compared]) -> float:
    """Relative RMS error of several tensors together."""
    from gemmaq.convert.compare import relative

    return relative(math.fsum(t.square_error for t in tensors), math.fsum(t.square for t in tensors))


def _number(error: float) -> float | None:
    """An error as JSON can hold it: None if it is infinite."""
    return error if math.isfinite(error) else None


def _percent(error: float) -> str:
    return "< 0.001 %" if 0 < error < 0.5e-5 else f"{100 * error:.3f} %"
