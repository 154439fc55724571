"""Sensitivities: what the predictions of a model lose when only some of its tensors are in a type; a JSON file.

Losses of groups add up, roughly: on the real 270M, rounded to nearest, the sum of all singles of the body is 0.34 nats
in Q4_0 and all at once 0.44; IQ4_NL 0.23 and 0.23, Q5_0 0.088 and 0.081 (tests/benchmarks/sensitivity_270m.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from gemmaq import __version__
from gemmaq.checkpoint import Checkpoint, spans_of
from gemmaq.errors import InputError
from gemmaq.files.malformed import refused
from gemmaq.files.span import Reader
from gemmaq.files.text import read_json

SCHEMA = "gemmaq.sensitivity/1"
NEAREST = "nearest"
_HINT = "measure it: gemmaq sensitivity SOURCE -o FILE"
_DIGITS = 6
"""Digits of a loss in the file: what texts and machines of another kind change is much more."""


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that were quantized together.

    Attributes:
        names: their canonical names.
        losses: method -> name of an encoding -> mean KL divergence of the model, in nats, when only these tensors are
            in it; 0 where it leaves them as they are. Method `nearest` is always there.
        measured: names of the encodings that were really run; losses in the others are scaled by weighted errors.
        shares: part of every tensor in the losses, as long as `names`; empty for equal parts.
    """

    names: tuple[str, ...]
    losses: Mapping[str, Mapping[str, float]]
    measured: tuple[str, ...]
    shares: tuple[float, ...] = ()

    def loss(self, encoding: str, method: str) -> float | None:
        """Loss of all tensors in an encoding by a method, or by nearest where it has none; None if neither is known."""
        found = self.losses.get(method, {}).get(encoding)
        return self.losses[NEAREST].get(encoding) if found is None else found

    def share(self, name: str) -> float:
        """Part of a tensor in the losses."""
        return self.shares[self.names.index(name)] if self.shares else 1 / len(self.names)


@dataclass(frozen=True, slots=True)
class Sensitivities:
    """Sensitivities of a model.

    Attributes:
        model: name of the model.
        fingerprint: digest of some of its weights, see `fingerprint`.
        texts: names of the files with text, without folders.
        digest: SHA-256 over these files, in hex.
        tokens: number of tokens that were scored.
        context: tokens of a sequence.
        groups: the groups; no tensor is in two of them.
    """

    model: str
    fingerprint: str
    texts: tuple[str, ...]
    digest: str
    tokens: int
    context: int
    groups: tuple[Group, ...]

    def predicted(self, types: Mapping[str, str], method: str) -> float:
        """Mean KL divergence to expect of a model, in nats.

        Args:
            types: canonical name -> name of an encoding; tensors without an entry stay as they are.
            method: name of the method that chooses the codes.

        Raises:
            InputError: the loss of a tensor in its type is not known.
        """
        found = []
        for group in self.groups:
            for name in group.names:
                if (encoding := types.get(name)) is None:
                    continue
                loss = group.loss(encoding, method)
                if loss is None:
                    raise InputError(f"no sensitivity to {encoding} is known of {name}", _HINT)
                found.append(loss * group.share(name))
        return math.fsum(found)


def unmeasured(checkpoint: Checkpoint, types: Iterable[str]) -> Sensitivities:
    """Sensitivities of a model of which nothing is known: no tensor loses anything in any of these types."""
    losses = {NEAREST: dict.fromkeys(types, 0.0)}
    names = [tensor.name for tensor in checkpoint.tensors.values() if tensor.place.role.is_quantizable]
    return Sensitivities(checkpoint.name, "", (), "", 0, 0, tuple(Group((name,), losses, ()) for name in names))


def fingerprint(checkpoint: Checkpoint) -> str:
    """Digest of some weights of every matrix and table, in hex; the same in every format that holds the same weights.

    Raises:
        InputError: the weights cannot be read.
    """
    from gemmaq.checkpoint.rows import weights

    digest, some = sha256(), [t for t in checkpoint.tensors.values() if t.place.role.is_quantizable]
    with Reader() as reader:
        reader.open(spans_of(some))
        for tensor in some:
            digest.update(f"{tensor.name} {tensor.shape} ".encode())
            for row in sorted({0, tensor.rows // 2, tensor.rows - 1}):
                digest.update(weights(tensor, row, 1, reader).astype("<f4").tobytes())
    return digest.hexdigest()


def check(sensitivities: Sensitivities, checkpoint: Checkpoint) -> None:
    """Check that sensitivities are those of a model; of its weights only where they are here.

    Raises:
        InputError: they are of another model.
    """
    names = (name for group in sensitivities.groups for name in group.names)
    lost = next((name for name in names if name not in checkpoint.tensors), None)
    if lost is not None:
        raise InputError(
            f"the sensitivities are of another model than {checkpoint.name} ({sensitivities.model}), which has {lost}",
            _HINT,
        )
    if checkpoint.weights_here and sensitivities.fingerprint != fingerprint(checkpoint):
        raise InputError(
            f"the sensitivities are of a model with other weights than {checkpoint.name} ({sensitivities.model})", _HINT
        )


def document(sensitivities: Sensitivities) -> bytes:
    """Content of the file: a JSON object, a line for every group."""
    s = sensitivities
    head = {
        "schema": SCHEMA,
        "gemmaq": __version__,
        "model": s.model,
        "fingerprint": s.fingerprint,
        "texts": list(s.texts),
        "digest": s.digest,
        "tokens": s.tokens,
        "context": s.context,
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in head.items()]
    groups = [f"    {json.dumps(_entry(group))}" for group in s.groups]
    return "\n".join(["{", *lines, '  "groups": [', ",\n".join(groups), "  ]", "}", ""]).encode()


def _entry(group: Group) -> dict[str, Any]:
    losses = {
        method: {encoding: rounded(loss) for encoding, loss in of_method.items()}
        for method, of_method in group.losses.items()
    }
    shares = {"shares": [rounded(share) for share in group.shares]} if group.shares else {}
    return {"tensors": list(group.names), **shares, "measured": list(group.measured), "losses": losses}


def rounded(value: float) -> float:
    """A loss as the file has it."""
    return float(f"{value:.{_DIGITS}g}")


def read(path: Path) -> Sensitivities:
    """Read a file of sensitivities.

    Raises:
        NotFoundError: it is missing.
        InputError: it is none, or damaged.
    """
    value = read_json(path)
    if value.get("schema") != SCHEMA:
        raise InputError(
            f"is no file of sensitivities that this gemmaq reads: its schema is {value.get('schema')!r:.60}, not "
            f"{SCHEMA}",
            _HINT,
            path=path,
        )
    with refused(path, hint=_HINT):
        return _parsed(value)


def _parsed(value: Mapping[str, Any]) -> Sensitivities:
    groups = tuple(_group(entry) for entry in value["groups"])
    names = [name for group in groups for name in group.names]
    if not names:
        raise ValueError("no tensors are in it")
    twice = next((name for name in names if names.count(name) > 1), None) if len({*names}) < len(names) else None
    if twice is not None:
        raise ValueError(f"{twice} is in it twice")
    return Sensitivities(
        model=_text(value["model"]),
        fingerprint=_text(value["fingerprint"]),
        texts=_texts(value["texts"]),
        digest=_text(value["digest"]),
        tokens=_whole(value["tokens"]),
        context=_whole(value["context"]),
        groups=groups,
    )


def _group(entry: Mapping[str, Any]) -> Group:
    names, shares = _texts(entry["tensors"]), tuple(_number(share) for share in entry.get("shares", ()))
    losses = {
        _text(method): {_text(encoding): _number(loss) for encoding, loss in of_method.items()}
        for method, of_method in entry["losses"].items()
    }
    if NEAREST not in losses:
        raise ValueError(f"{names[0] if names else 'a group'} has no losses of method {NEAREST}")
    if shares and len(shares) != len(names):
        raise ValueError(f"{names[0] if names else 'a group'} has {len(shares)} shares of {len(names)} tensors")
    return Group(names, losses, _texts(entry["measured"]), shares)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is no text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.60} is no list")
    return tuple(_text(part) for part in value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r:.60} is no loss")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r:.60} is no number of tokens")
    return value
