"""gemmaq.json, the record of an artifact: source, recipe and every tensor. It holds no time, host or path."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gemmaq import __version__
from gemmaq.artifact.origin import Origin
from gemmaq.artifact.outcomes import Outcome, OutcomeCounter
from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.errors import InputError, UsageError
from gemmaq.files.text import read_json
from gemmaq.planning import containers, recipe
from gemmaq.planning.plan import MMPROJ, Plan, PlannedTensor
from gemmaq.planning.request import Calibration, Request

NAME = "gemmaq.json"
SCHEMA = "gemmaq.artifact/1"


@dataclass(frozen=True, slots=True)
class Listed:
    """A file: path within its folder, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str

    def document(self) -> dict[str, Any]:
        """The file as an entry of gemmaq.json."""
        return {"path": self.path, "bytes": self.size, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor on record: name in the container, shape (rows first), name of its encoding."""

    name: str
    shape: tuple[int, ...]
    encoding: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """Content of a gemmaq.json, as far as it is checked.

    Attributes:
        version: version of gemmaq that wrote it.
        name: name of the source model.
        repo: repository of the source, None if it was not on record.
        container: name of the container.
        request: types, methods and containers that were asked for.
        files: files that hold tensors.
        tensors: tensors in these files.
    """

    version: str
    name: str
    repo: str | None
    container: str
    request: Request
    files: tuple[Listed, ...]
    tensors: tuple[Made, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that gemmaq.json tells about an artifact.

    Attributes:
        origin: the source.
        digests: SHA-256 of the source's files, in their order.
        request: types, methods and containers that were asked for.
        plan: the container's plan, carried out.
        outcomes: outcome of each tensor.
        weights: files that hold tensors.
    """

    origin: Origin
    digests: Sequence[str]
    request: Request
    plan: Plan
    outcomes: OutcomeCounter
    weights: Sequence[Listed]


def document(record: Record) -> bytes:
    """Content of gemmaq.json."""
    origin, plan = record.origin, record.plan
    tensors = [_tensor(record.outcomes.outcome(plan.format, planned), planned) for planned in plan.everything]
    methods = dict.fromkeys(tensor["method"] for tensor in tensors if tensor["method"])
    value = {
        "schema": SCHEMA,
        "gemmaq": __version__,
        "source": {
            "name": origin.name,
            "repo": origin.repo,
            "revision": origin.commit,
            "format": origin.format,
            "files": [
                Listed(file.name, file.size, digest).document()
                for file, digest in zip(origin.files, record.digests, strict=True)
            ],
        },
        "recipe": _recipe(record.request),
        "container": plan.format,
        "method": list(methods),
        "files": [file.document() for file in record.weights],
        "tensors": tensors,
        "warnings": [_without_paths(warning, origin) for warning in plan.warnings],
    }
    return _spelled(value)


def _tensor(outcome: Outcome, planned: PlannedTensor) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "shape": list(planned.shape),
        "type": outcome.encoding,
        "method": planned.choice.method if outcome.is_chosen else None,
        "how": outcome.how,
        "rounded": outcome.rounded,
    }


def _without_paths(text: str, origin: Origin) -> str:
    """A sentence with file names in place of paths, which are private."""
    for place in sorted(origin.folders, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./-]){re.escape(place)}/", "", text)
    return text


def _spelled(value: Mapping[str, Any]) -> bytes:
    """JSON with one line for each entry of a list."""
    parts = []
    for key, part in value.items():
        text = json.dumps(part, ensure_ascii=False)
        if isinstance(part, list) and part and isinstance(part[0], dict):
            lines = ",\n".join("    " + json.dumps(item, ensure_ascii=False) for item in part)
            text = f"[\n{lines}\n  ]"
        parts.append(f"  {json.dumps(key)}: {text}")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def _recipe(request: Request) -> dict[str, Any]:
    recipe = request.recipe
    return {
        "quant": recipe.label.lower(),
        "embedding": recipe.embedding.name if recipe.embedding else None,
        "method": recipe.method,
        "rules": [
            {"match": rule.pattern, "type": rule.encoding.name if rule.encoding else None, "method": rule.method}
            for rule in recipe.rules
        ],
        "to": list(request.to),
        "portable": request.portable,
        "scales": request.scales,
        "mmproj": request.mmproj,
        "max_shard_bytes": request.shard_bytes,
        "calibration": asdict(request.calibration) if request.calibration else None,
    }


def read(folder: Path) -> Provenance | None:
    """Read the gemmaq.json of a folder; None if it has none.

    Raises:
        InputError: the file was not written by gemmaq, or was changed.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    value = read_json(path)
    if value.get("schema") != SCHEMA:
        raise InputError(f"has the schema {value.get('schema')!r:.60}", f"this gemmaq reads {SCHEMA}", path=path)
    try:
        return _provenance(value)
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise InputError(f"is not what gemmaq writes: {type(error).__name__} {error}", path=path) from error


def _provenance(value: Mapping[str, Any]) -> Provenance:
    source, choices = value["source"], value["recipe"]
    rules = tuple(
        recipe.Rule(_text(rule["match"]), _encoding(rule["type"]), _maybe_text(rule["method"]))
        for rule in choices["rules"]
    )
    embedding, limit = _encoding(choices["embedding"]), choices["max_shard_bytes"]
    if choices["scales"] not in ("bf16", "f16") or choices["mmproj"] not in (*MMPROJ, None):
        raise ValueError(f"scales {choices['scales']!r:.20}, mmproj {choices['mmproj']!r:.20}")
    request = Request(
        recipe=recipe.of(
            _text(choices["quant"]),
            embedding=embedding.name if embedding else None,
            method=_text(choices["method"]),
            rules=rules,
        ),
        to=tuple(containers.check(_text(name)) for name in choices["to"]),
        portable=bool(choices["portable"]),
        scales=choices["scales"],
        mmproj=choices["mmproj"],
        shard_bytes=None if limit is None else _count(limit),
        calibration=_calibration(choices.get("calibration")),
    )
    files = tuple(Listed(_text(f["path"]), _count(f["bytes"]), _text(f["sha256"])) for f in value["files"])
    tensors = tuple(
        Made(_text(t["name"]), tuple(_count(n) for n in t["shape"]), ENCODINGS[_text(t["type"])].name)
        for t in value["tensors"]
    )
    return Provenance(
        version=_text(value["gemmaq"]),
        name=_text(source["name"]),
        repo=_maybe_text(source["repo"]),
        container=containers.check(_text(value["container"])),
        request=request,
        files=files,
        tensors=tensors,
    )


def _calibration(value: Any) -> Calibration | None:
    if value is None:
        return None
    if _count(value["context"]) < 2:
        raise ValueError(f"calibration on sequences of {value['context']}")
    return Calibration(
        texts=tuple(_text(name) for name in value["texts"]),
        digest=_text(value["digest"]),
        tokens=_count(value["tokens"]),
        context=_count(value["context"]),
        damping=float(value["damping"]),
        order=_text(value["order"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is no text")
    return value


def _maybe_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r:.60} is no count")
    return value


def _encoding(value: Any) -> Encoding | None:
    return None if value is None else ENCODINGS[_text(value)]
