"""Tables and JSON objects of `gemmaq evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gemmaq.cli import console

if TYPE_CHECKING:
    from gemmaq.evaluate.chunks import Chunks
    from gemmaq.evaluate.result import Result
    from gemmaq.evaluate.score import Score

COLUMNS = (
    "model", "size", "bits/weight", "perplexity",
    "mean KL", "KL ±", "median KL", "99 % KL", "99.9 % KL", "top-1", "RMS Δp",
)  # fmt: skip
_SHOWN = [COLUMNS.index(name) for name in ("model", "size", "perplexity", "mean KL", "99 % KL", "top-1")]
"""Numbers of the columns that fit a terminal; the report shows all."""


def plan(reference: str, models: Sequence[tuple[str, str]], chunks: Chunks) -> dict[str, Any]:
    """The JSON object of a dry run; models are sources with the types of a KV cache, empty for none."""
    return {
        "reference": {"model": reference},
        "tokens": chunks.scored,
        "context": chunks.context,
        "models": [_named(*model) for model in models],
    }


def _named(source: str, kv_type: str) -> dict[str, Any]:
    return {"model": source, **({"kv_type": kv_type} if kv_type else {})}


def scored(chunks: Chunks) -> str:
    """How much text is scored."""
    return (
        f"{chunks.scored:,} tokens scored, in {len(chunks.tokens)} of {chunks.available} chunks of {chunks.context} "
        "tokens"
    )


def document(results: Sequence[Result], chunks: Chunks, missed: Mapping[str, list[str]]) -> dict[str, Any]:
    """The JSON object; `missed` has the limits that models missed, by their titles, and is empty without limits."""
    reference, *models = results
    return {
        "reference": _entry(reference),
        "tokens": chunks.scored,
        "context": chunks.context,
        "models": [
            _entry(model)
            | _divergence(model.score, reference.score)
            | _of_kinds(model.score, reference.score, chunks)
            | ({"passed": not missed[model.title]} if missed else {})
            for model in models
        ],
    }


def _divergence(score: Score, reference: Score) -> dict[str, Any]:
    return {
        "kl": {
            "mean": score.kl_mean,
            "stderr": score.kl_stderr,
            "median": score.kl_at(50),
            "p99": score.kl_at(99),
            "p999": score.kl_at(99.9),
            "max": score.kl_at(100),
        },
        "top1": score.top1,
        "delta_p": {"mean": float(score.changes(reference).mean()), "rms": _rms(score, reference)},
    }


def _rms(score: Score, reference: Score) -> float:
    """Root mean square of what quantization changes in the probability of the text's tokens."""
    return float((score.changes(reference) ** 2).mean() ** 0.5)


def _of_kinds(score: Score, reference: Score, chunks: Chunks) -> dict[str, Any]:
    """Scores of the kinds of text; nothing where there is the user's text alone."""
    kinds = {kind: (score.part(tokens), reference.part(tokens)) for kind, tokens in chunks.scored_of.items()}
    if not kinds:
        return {}
    return {
        "kinds": {
            kind: {"tokens": len(part.kl), "perplexity": part.perplexity} | _divergence(part, of_reference)
            for kind, (part, of_reference) in kinds.items()
        }
    }


def _entry(model: Result) -> dict[str, Any]:
    return {
        **_named(model.source, model.kv_type),
        "bytes": model.bytes,
        "bits_per_weight": round(model.bits_per_weight, 4),
        "perplexity": model.score.perplexity,
        "perplexity_stderr": model.score.perplexity_stderr,
    }


def table(results: Sequence[Result], chunks: Chunks) -> None:
    """Print the results, and those of every kind of text."""
    from gemmaq.evaluate.result import kind_rows

    columns, *rows = [[row[at] for at in _SHOWN] for row in grid(results)]
    console.table(scored(chunks), columns, rows, fold=True, spare=("99 % KL", "perplexity"))
    if chunks.kinds:
        first, *kinds = kind_rows(results, chunks)
        console.table("mean KL, by kind of text", list(first), [list(row) for row in kinds], fold=True)


def grid(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The names of all columns, and a row of cells for the reference and for each model."""
    return [COLUMNS, *(_cells(model, results[0].score) for model in results)]


def _cells(model: Result, reference: Score) -> tuple[str, ...]:
    from gemmaq.evaluate.result import format_kl

    score = model.score
    first = (
        f"{model.label} (reference)" if model.is_reference else model.label,
        console.size(model.bytes),
        f"{model.bits_per_weight:.2f}",
        f"{score.perplexity:.3f} ± {score.perplexity_stderr:.3f}",
    )
    if model.is_reference:
        return first + ("",) * (len(COLUMNS) - len(first))
    figures = (score.kl_mean, score.kl_stderr, score.kl_at(50), score.kl_at(99), score.kl_at(99.9))
    return (*first, *map(format_kl, figures), f"{100 * score.top1:.2f} %", f"{100 * _rms(score, reference):.2f} %")
