"""gemmaq.json as it is written: source, recipe and every tensor of an artifact's models, but no time, host or path."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gemmaq import __version__
from gemmaq.artifact.origin import Origin
from gemmaq.artifact.outcomes import Outcome, OutcomeCounter
from gemmaq.artifact.provenance import ADAPTER_SCHEMA, SCHEMA, Listed
from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import Encoding
from gemmaq.planning.format import Constant
from gemmaq.planning.plan import Plan, PlannedTensor
from gemmaq.planning.request import Calibration, Request


@dataclass(frozen=True, slots=True)
class Source:
    """A source: its origin, and SHA-256 of its files in their order, None where that was left out."""

    origin: Origin
    digests: Sequence[str | None]

    def document(self) -> dict[str, Any]:
        """The source as an entry of gemmaq.json."""
        origin, files = self.origin, zip(self.origin.files, self.digests, strict=True)
        return {
            "name": origin.name,
            "repo": origin.repo,
            "revision": origin.commit,
            "format": origin.format,
            "files": [{"path": file.name, "bytes": file.size, "sha256": digest} for file, digest in files],
        }


@dataclass(frozen=True, slots=True)
class MergedAdapter:
    """The adapter that is merged into a source: its origin, what it is (`LoRA`), its rank, and its base's name."""

    source: Source
    kind: str
    rank: int
    base: str

    def document(self) -> dict[str, Any]:
        """The adapter as an entry of gemmaq.json."""
        return {**self.source.document(), "kind": self.kind, "rank": self.rank, "base": self.base}


def merged(source: Source | None, checkpoint: Checkpoint) -> MergedAdapter | None:
    """The adapter of a checkpoint; None if there is none."""
    adapter = checkpoint.adapter
    if source is None or adapter is None:
        return None
    return MergedAdapter(source, adapter.kind, adapter.rank, adapter.base.name)


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that gemmaq.json tells about a model in one type.

    Attributes:
        source: the source.
        drafter: source of the drafter, None without a drafter.
        plan: the plan, carried out.
        outcomes: outcome of each tensor.
        weights: files that hold tensors.
        size: bytes and numbers that the model card is made of, see `description.size`.
        adapter: the adapter that is merged into the source, None for none.
    """

    source: Source
    drafter: Source | None
    plan: Plan
    outcomes: OutcomeCounter
    weights: Sequence[Listed]
    size: Mapping[str, Any]
    adapter: MergedAdapter | None = None


def entry(record: Record) -> dict[str, Any]:
    """The entry of a model, for `text`."""
    sources = [record.source, record.drafter, record.adapter.source if record.adapter is not None else None]
    plan, origins = record.plan, [source.origin for source in sources if source is not None]
    generated = [_generated(array) for array in plan.constants]
    tensors = [_tensor(record.outcomes.outcome(plan.key, planned), planned) for planned in plan.everything]
    methods = dict.fromkeys(tensor["method"] for tensor in tensors if tensor["method"])
    return {
        "type": plan.label,
        "gemmaq": __version__,
        "source": record.source.document(),
        **({"adapter": record.adapter.document()} if record.adapter is not None else {}),
        **({"drafter": record.drafter.document()} if record.drafter is not None else {}),
        "recipe": recipe(plan.request),
        "method": list(methods),
        "size": dict(record.size),
        "files": [file.document() for file in record.weights],
        "tensors": [*generated, *tensors],
        "warnings": [_without_paths(warning, origins) for warning in (*plan.notes, *plan.warnings)],
    }


def text(container: str, entries: Sequence[Mapping[str, Any]]) -> bytes:
    """Content of gemmaq.json.

    Args:
        container: name of the container.
        entries: an entry for each model.
    """
    about = {"schema": SCHEMA, "container": container}
    head = "".join(f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in about.items())
    models = ",\n".join(map(_spelled, entries))
    return f'{{\n{head}  "models": [\n{models}\n  ]\n}}\n'.encode()


def adapter_text(adapter: MergedAdapter, kind: str, file: Listed) -> bytes:
    """Content of the gemmaq.json of an adapter alone.

    Args:
        adapter: the adapter, which is not merged here.
        kind: type of its file.
        file: its file.
    """
    about = {"schema": ADAPTER_SCHEMA, "gemmaq": __version__, "type": kind, "adapter": adapter.document()}
    return f"{json.dumps({**about, 'files': [file.document()]}, indent=2)}\n".encode()


def _tensor(outcome: Outcome, planned: PlannedTensor) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "shape": list(planned.shape),
        "type": outcome.encoding,
        "method": planned.choice.method if outcome.is_chosen else None,
        "how": outcome.how,
        "rounded": outcome.rounded,
    }


def _generated(array: Constant) -> dict[str, Any]:
    entry = {"name": array.name, "shape": list(array.shape), "type": array.dtype.lower()}
    return {**entry, "method": None, "how": "generated", "rounded": 0}


def _without_paths(text: str, origins: Sequence[Origin]) -> str:
    """A sentence with file names in place of paths, which are private."""
    for place in sorted({place for origin in origins for place in origin.folders}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./-]){re.escape(place)}/", "", text)
    return text


def _spelled(value: Mapping[str, Any]) -> str:
    """An entry in JSON, with one line for each tensor and file."""
    parts = []
    for key, part in value.items():
        text = json.dumps(part, ensure_ascii=False)
        if isinstance(part, list) and part and isinstance(part[0], dict):
            lines = ",\n".join("        " + json.dumps(item, ensure_ascii=False) for item in part)
            text = f"[\n{lines}\n      ]"
        parts.append(f"      {json.dumps(key)}: {text}")
    return "    {\n" + ",\n".join(parts) + "\n    }"


def _by_type(like: Mapping[str, Encoding]) -> dict[str, list[str]]:
    """Type -> names of the tensors that have it."""
    found: dict[str, list[str]] = {}
    for name, encoding in like.items():
        found.setdefault(encoding.name, []).append(name)
    return found


def recipe(request: Request) -> dict[str, Any]:
    """A request as an entry of gemmaq.json."""
    recipe = request.recipe
    return {
        "quant": recipe.asked_label.lower(),
        **({"name": recipe.name} if recipe.name else {}),
        "embedding": recipe.embedding.name if recipe.embedding else None,
        **({"ple_type": recipe.layer_embedding.name} if recipe.layer_embedding else {}),
        **({"ple_proj_type": recipe.layer_projection.name} if recipe.layer_projection else {}),
        "method": recipe.method,
        "rules": [
            {
                "regex" if rule.is_regex else "match": rule.pattern,
                "type": rule.encoding.name if rule.encoding else None,
                "method": rule.method,
            }
            for rule in recipe.rules
        ],
        **({"like": _by_type(recipe.like)} if recipe.like else {}),
        "to": list(request.to),
        "portable": request.portable,
        "scales": request.scales,
        "mmproj": request.mmproj,
        "max_shard_bytes": request.shard_bytes,
        **({"dense_heads": True} if request.dense_heads else {}),
        **({"draft": True} if request.draft else {}),
        **({"budget": asdict(request.budget)} if request.budget else {}),
        "calibration": _calibration(request.calibration) if request.calibration else None,
    }


def _calibration(calibration: Calibration) -> dict[str, Any]:
    said = asdict(calibration)
    if calibration.refine is None:
        del said["refine"]
    else:
        del said["refine"]["seconds"]
    return said
