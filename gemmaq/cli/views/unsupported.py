"""What the headers of a model that gemmaq cannot convert say all the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

from gemmaq.cli import console
from gemmaq.cli.console import Output
from gemmaq.errors import UnsupportedModelError


def emit(source: str, error: UnsupportedModelError, output: Output) -> None:
    """Print parameters, bytes and types of the weights, and that this is all there is.

    Raises:
        UnsupportedModelError: Its headers were not read.
    """
    if not error.tensors:
        raise error
    facts = _facts(source, error)
    output.emit(lambda: facts, essential=lambda: [str(facts["tensor_bytes"])], show=lambda: _show(facts, error))


def _facts(source: str, error: UnsupportedModelError) -> dict[str, Any]:
    counts = Counter(kind for kind, _, _ in error.tensors)
    sizes: Counter[str] = Counter()
    for kind, _, size in error.tensors:
        sizes[kind] += size
    return {
        "location": source,
        "supported": False,
        "reason": error.problem,
        "parameters": sum(weights for _, weights, _ in error.tensors),
        "tensor_bytes": sum(sizes.values()),
        "types": {kind: {"tensors": counts[kind], "bytes": size} for kind, size in sizes.most_common()},
    }


def _show(facts: dict[str, Any], error: UnsupportedModelError) -> None:
    types = ", ".join(f"{entry['tensors']} {kind.upper()}" for kind, entry in facts["types"].items())
    console.out(f"model       {facts['location']}")
    console.out(f"parameters  {facts['parameters']:,}")
    console.out(f"weights     {console.size(facts['tensor_bytes'])}: {types}")
    console.out(f"note        {error.problem}. This is all that its headers say.")
