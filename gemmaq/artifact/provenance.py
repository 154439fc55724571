"""gemmaq.json, the record of an artifact, as it is read: a record for each of its models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gemmaq.encodings import ENCODINGS, Encoding
from gemmaq.errors import InputError, NotFoundError, UsageError
from gemmaq.files.replacing import RECORD
from gemmaq.files.text import read_json
from gemmaq.hub import is_repository
from gemmaq.planning import containers, recipe
from gemmaq.planning.plan import MMPROJ
from gemmaq.planning.request import Budget, Calibration, Matrix, Refinement, Request
from gemmaq.planning.rules import Rule, regex

NAME = RECORD
SCHEMA = "gemmaq.artifact/2"
ADAPTER_SCHEMA = "gemmaq.adapter/1"
_FIRST_SCHEMA = "gemmaq.artifact/1"
"""Of artifacts with one model, whose entry was the whole document."""


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
class Quality:
    """How a model predicts texts, as `gemmaq evaluate --record` measured it.

    Attributes:
        reference: repository or name of the model that it was compared with.
        texts: names of the texts, without folders.
        tokens: number of scored tokens.
        context: tokens in a chunk of text.
        kl: mean KL divergence from the reference, in nats.
        top1: share of the tokens for which both hold the same one for the likeliest.
        perplexity: perplexity of the model.
    """

    reference: str
    texts: tuple[str, ...]
    tokens: int
    context: int
    kl: float
    top1: float
    perplexity: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a gemmaq.json says of a model, as far as it is checked.

    Attributes:
        version: version of gemmaq that wrote it.
        name: name of the source model.
        repo: repository of the source, None if it was not on record.
        container: name of the container.
        request: types, methods and containers that were asked for.
        files: files that hold tensors.
        tensors: tensors in these files.
        drafter: name of the drafter beside the model, None for none.
        entry: all that is on record.
        quality: how it predicts texts, None if that was not measured.
        adapter: name, repository, revision, kind, rank and base of the adapter that was merged into the source, None
            for none.
    """

    version: str
    name: str
    repo: str | None
    container: str
    request: Request
    files: tuple[Listed, ...]
    tensors: tuple[Made, ...]
    drafter: str | None
    entry: Mapping[str, Any]
    quality: Quality | None = None
    adapter: Mapping[str, Any] | None = None

    @property
    def label(self) -> str:
        """The type, as file names show it."""
        return str(self.entry.get("type") or self.request.recipe.label)


def read(folder: Path) -> tuple[Provenance, ...]:
    """Read the gemmaq.json of a folder, a record for each model; none if there is no such file.

    Raises:
        InputError: the file was not written by gemmaq, or was changed.
    """
    path = folder / NAME
    return parse(read_json(path), path) if path.is_file() else ()


def is_of_adapter(folder: Path) -> bool:
    """Whether the gemmaq.json of a folder tells of an adapter alone."""
    try:
        return read_json(folder / NAME).get("schema") == ADAPTER_SCHEMA
    except (InputError, NotFoundError):
        return False


def parse(value: Mapping[str, Any], path: object) -> tuple[Provenance, ...]:
    """The records of a gemmaq.json, none in that of an adapter alone.

    Args:
        value: its content.
        path: its path, for errors.

    Raises:
        InputError: it was not written by gemmaq, or was changed.
    """
    if value.get("schema") == ADAPTER_SCHEMA:
        return ()
    if value.get("schema") not in (SCHEMA, _FIRST_SCHEMA):
        raise InputError(f"has the schema {value.get('schema')!r:.60}", f"this gemmaq reads {SCHEMA}", path=path)
    try:
        models = [value] if value["schema"] == _FIRST_SCHEMA else value["models"]
        records = tuple(_provenance(entry, _text(value["container"])) for entry in models)
        if not records:
            raise ValueError("no models")
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, UsageError) as error:
        what = f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"is not what gemmaq writes: {what}", "convert again, or download it again", path=path
        ) from error
    return records


def _provenance(value: Mapping[str, Any], container: str) -> Provenance:
    source, choices = value["source"], value["recipe"]
    rules = tuple(_rule(rule) for rule in choices["rules"])
    limit = choices["max_shard_bytes"]
    types = {name: _encoding(choices.get(name)) for name in ("embedding", "ple_type", "ple_proj_type")}
    if choices["scales"] not in ("bf16", "f16") or choices["mmproj"] not in (*MMPROJ, None):
        raise ValueError(f"scales {choices['scales']!r:.20}, mmproj {choices['mmproj']!r:.20}")
    request = Request(
        recipe=replace(
            recipe.of(
                _text(choices["quant"]),
                method=_text(choices["method"]),
                rules=rules,
                **{name: encoding.name if encoding else None for name, encoding in types.items()},
            ),
            like={_text(name): ENCODINGS[kind] for kind, names in choices.get("like", {}).items() for name in names},
            name=_maybe_text(choices.get("name")),
        ),
        to=tuple(containers.check(_text(name)) for name in choices["to"]),
        portable=bool(choices["portable"]),
        scales=choices["scales"],
        mmproj=choices["mmproj"],
        dense_heads=bool(choices.get("dense_heads")),
        draft=bool(choices.get("draft")),
        shard_bytes=None if limit is None else _count(limit),
        calibration=_calibration(choices.get("calibration")),
        budget=_budget(choices.get("budget")),
    )
    _check_shown(value)
    files = tuple(Listed(_path(f["path"]), _count(f["bytes"]), _text(f["sha256"])) for f in value["files"])
    tensors = tuple(
        Made(_text(t["name"]), tuple(_count(n) for n in t["shape"]), ENCODINGS[_text(t["type"])].name)
        for t in value["tensors"]
    )
    return Provenance(
        version=_text(value["gemmaq"]),
        name=_text(source["name"]),
        repo=_repo(source["repo"]),
        container=containers.check(container),
        request=request,
        files=files,
        tensors=tensors,
        drafter=_text(value["drafter"]["name"]) if "drafter" in value else None,
        entry=value,
        quality=_quality(value.get("quality")),
        adapter=_adapter(value.get("adapter")),
    )


def _rule(value: Mapping[str, Any]) -> Rule:
    encoding, method = _encoding(value["type"]), _maybe_text(value["method"])
    if "regex" in value:
        return regex(_text(value["regex"]), encoding, method)
    return Rule(_text(value["match"]), encoding, method)


def _calibration(value: Any) -> Calibration | None:
    if value is None:
        return None
    if _count(value["context"]) < 2:
        raise ValueError(f"calibration on sequences of {value['context']}")
    sweeps = value.get("sweeps", 0)  # there were none before they were on record
    return Calibration(
        texts=tuple(_text(name) for name in value["texts"]),
        digest=_text(value["digest"]),
        tokens=_count(value["tokens"]),
        context=_count(value["context"]),
        damping=float(value["damping"]),
        order=_text(value["order"]),
        sweeps=None if sweeps is None else _count(sweeps),
        used=_count(value.get("used", 0)),
        matrix=_matrix(value.get("matrix")),
        refine=_refinement(value.get("refine")),
    )


def _matrix(value: Any) -> Matrix | None:
    if value is None:
        return None
    datasets = tuple(_text(name) for name in value["datasets"])
    counts = (_count(value["entries"]), _count(value["chunks"]), _count(value.get("size", 0)))
    return Matrix(_text(value["file"]), datasets, *counts)


def _budget(value: Any) -> Budget | None:
    if value is None:
        return None
    figures = (float(value["predicted"]), _text(value["uniform"]), float(value["uniform_predicted"]))
    return Budget(_text(value["target"]), _text(value["sensitivities"]), *figures)


def _refinement(value: Any) -> Refinement | None:
    if value is None:
        return None
    minutes, kept = value["minutes"], value["kept"]
    return Refinement(
        None if minutes is None else float(minutes),
        _count(value["steps"]),
        None if kept is None else _count(kept),
        float(value["before"]),
        float(value["after"]),
    )


def _quality(value: Any) -> Quality | None:
    if value is None:
        return None
    texts = tuple(_text(name) for name in value["texts"])
    measured = (float(value[name]) for name in ("kl", "top1", "perplexity"))
    return Quality(_text(value["reference"]), texts, _count(value["tokens"]), _count(value["context"]), *measured)


def _adapter(value: Any) -> Mapping[str, Any] | None:
    if value is None:
        return None
    texts = {key: _text(value[key]) for key in ("name", "kind", "base")}
    origin = {"repo": _repo(value["repo"]), "revision": _maybe_text(value["revision"])}
    return {**texts, "rank": _count(value["rank"]), **origin}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is no text")
    return value


def _path(value: Any) -> str:
    """A path that stays in its folder."""
    path = _text(value)
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} is outside the folder")
    return path


def _maybe_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _repo(value: Any) -> str | None:
    """A repository with a name that the Hub allows."""
    if value is not None and not is_repository(_text(value)):
        raise ValueError(f"{value!r:.60} is no repository")
    return _maybe_text(value)


def _check_shown(value: Mapping[str, Any]) -> None:
    """Refuse a type or methods that are read from the entry later, and are not what they should be."""
    label = _maybe_text(value.get("type"))
    if label and not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", label):
        raise ValueError(f"{label!r:.60} is no type")
    for name in value.get("method", ()):
        _text(name)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r:.60} is no count")
    return value


def _encoding(value: Any) -> Encoding | None:
    return None if value is None else ENCODINGS[_text(value)]
