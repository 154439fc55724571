"""Recipes: the type and method of every tensor, from flags or from a file in recipes/."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gemmaq import methods
from gemmaq.checkpoint import Checkpoint, Tensor
from gemmaq.encodings import ENCODINGS, Encoding, find, listed
from gemmaq.errors import InputError, NotFoundError, UsageError, nearest, unknown
from gemmaq.files.malformed import check_depth, refused
from gemmaq.files.text import read_text
from gemmaq.methods import METHODS, Needs
from gemmaq.models.roles import Role
from gemmaq.planning.mixtures import MIXTURES, Mixture, Spot
from gemmaq.planning.rules import Rule as Rule
from gemmaq.planning.rules import regex, resolved

TYPES = tuple(dict.fromkeys((*ENCODINGS, *MIXTURES)))
"""Types that a user may ask for, besides `auto`."""
AUTO = "auto"
"""Keep the types of a quantized source."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Types and methods of a conversion.

    Attributes:
        body: encoding of the matrices of the layers.
        embedding: encoding of the embedding (and of an untied head), None to let the container choose.
        method: name of a method, or `auto`.
        rules: exceptions by name, the first match counts.
        keep: let a quantized source keep its encodings where the container can hold them.
        mixture: mixture of types for the body, None for a single one; `body` is its most frequent type.
        layer_embedding: encoding of the embedding that has rows for every layer, None to let the container choose.
        layer_projection: encoding of the matrix that makes the inputs of all layers, None likewise.
        like: canonical name -> encoding, where the types of another file are taken over; whatever else is asked for by
            name or role comes before.
        name: what the types of `like` are called in file names, where gemmaq chose them; None for the body's label.
    """

    body: Encoding
    embedding: Encoding | None = None
    method: str = "auto"
    rules: tuple[Rule, ...] = ()
    keep: bool = False
    mixture: Mixture | None = None
    layer_embedding: Encoding | None = None
    layer_projection: Encoding | None = None
    like: Mapping[str, Encoding] = field(default_factory=dict)
    name: str | None = None

    def asked(self, tensor: Tensor) -> Encoding | None:
        """The encoding that is asked for by the tensor's name or role, None if the choice is free."""
        for rule in self.rules:
            if rule.encoding and rule.matches(tensor.name):
                return rule.encoding
        by_role = {Role.LAYER_EMBEDDING: self.layer_embedding, Role.LAYER_PROJECTION: self.layer_projection}
        role = tensor.place.role
        return by_role.get(role, self.embedding if role.is_table else None) or self.like.get(tensor.name)

    def resolved(self, checkpoint: Checkpoint) -> Recipe:
        """The recipe with the names that its regular expressions stand for in a model.

        Raises:
            UsageError: one of them stands for none.
        """
        return replace(self, rules=resolved(self.rules, checkpoint))

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of all methods that it asks for."""
        return (self.method, *(rule.method for rule in self.rules if rule.method is not None))

    @property
    def label(self) -> str:
        """Type of the body as in file names (`Q4_0`, `Q4_K_M`, `auto`), or the name of the chosen types (`4.60bpw`)."""
        return self.name or self.asked_label

    @property
    def asked_label(self) -> str:
        """Type of the body, whatever the types of single tensors are called together."""
        return AUTO if self.keep else (self.mixture or self.body).label

    def body_for(self, tensor: Tensor, checkpoint: Checkpoint, *, shared: bool) -> Encoding:
        """The encoding of a matrix of a layer; `shared` says whether other containers take the same codes."""
        layer, kind = tensor.place.layer, tensor.place.kind
        if self.mixture is None or layer is None:
            return self.body
        layers = checkpoint.config.layers
        first, experts = layers[0], layers[layer].experts
        number, count = checkpoint.position(tensor)
        needs = method.needs if (method := METHODS.get(self.method_for(tensor.name))) else Needs.NOTHING
        spot = Spot(
            kind,
            number,
            count,
            layer=layer,
            layers=len(layers),
            sharing=first.heads // first.kv_heads,
            experts=experts.count if experts else 0,
            calibrated=needs is not Needs.NOTHING,
            weighted=needs is Needs.IMPORTANCE and not shared,
        )
        return self.mixture.encoding_of(spot)

    def weighs(self, encoding: Encoding) -> bool:
        """Whether a layer's matrix needs an importance matrix in a type."""
        return encoding.needs_importance or (self.mixture is not None and self.mixture.weighs(encoding))

    @property
    def needs_importance(self) -> bool:
        """Whether some matrices of the layers need an importance matrix."""
        return self.body.needs_importance or (self.mixture is not None and self.mixture.needs_importance)

    def method_for(self, name: str) -> str:
        """The method of a tensor, by its canonical name."""
        return next((r.method for r in self.rules if r.method is not None and r.matches(name)), self.method)


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """Content of a recipe file; None for keys that it leaves out.

    Attributes:
        description: purpose of the recipe, and the size of its results.
        to: containers.
        quant: types of the body, one for each model that is made; none leaves the choice to the caller.
        embedding: type of the embedding.
        method: name of a method, or `auto`.
        rules: exceptions by name.
        ple_type: type of the embedding that has rows for every layer.
        ple_proj_type: type of the matrix that makes the inputs of all layers.
    """

    description: str
    to: tuple[str, ...]
    quant: tuple[str, ...]
    embedding: str | None
    method: str | None
    rules: tuple[Rule, ...]
    ple_type: str | None = None
    ple_proj_type: str | None = None


def of(
    quant: str,
    *,
    embedding: str | None = None,
    method: str = "auto",
    rules: tuple[Rule, ...] = (),
    ple_type: str | None = None,
    ple_proj_type: str | None = None,
) -> Recipe:
    """A recipe from names of types and methods, in upper or lower case.

    Args:
        quant: one of `TYPES`, or `auto`.
        embedding: name of an encoding, None to let the container choose.
        method: name of a method, or `auto`.
        rules: exceptions by name.
        ple_type: name of the encoding of the embedding that has rows for every layer, None likewise.
        ple_proj_type: name of the encoding of the matrix that makes the inputs of all layers, None likewise.

    Raises:
        UsageError: a type or method is unknown.
    """
    keep, mixture = quant.lower() == AUTO, MIXTURES.get(quant.lower())
    body = mixture.body if mixture else find("q4_0" if keep else quant, TYPES)
    tables = [single(name) if name else None for name in (embedding, ple_type, ple_proj_type)]
    return Recipe(body, tables[0], methods.check(method), rules, keep, mixture, tables[1], tables[2])


def single(name: str) -> Encoding:
    """The encoding of a name that a user gives to single tensors.

    Raises:
        UsageError: it is unknown, or a mixture.
    """
    mixture = MIXTURES.get(name.lower())
    if mixture is not None and name.lower() not in ENCODINGS:
        raise UsageError(
            f"{mixture.label} is a mixture, and a tensor has one type", f"{mixture.body.name}, for example"
        )
    return find(name)


def encoding_for(
    recipe: Recipe, tensor: Tensor, *, default: Encoding, fallback: str | None, allowed: frozenset[str]
) -> tuple[Encoding, str | None]:
    """The encoding of a tensor, and the reason if it is not the requested one.

    Args:
        recipe: the request.
        tensor: matrix or table to be quantized.
        default: encoding of a tensor whose name and role the recipe says nothing of.
        fallback: name of the encoding for rows that do not fit that one, None for F16.
        allowed: names of the encodings that the container can hold.

    Raises:
        InputError: a type requested for this tensor cannot hold it.
    """
    columns, stored = tensor.columns, tensor.encoding
    explicit = recipe.asked(tensor)
    if explicit is not None:
        if explicit.name not in allowed:
            raise InputError(
                f"cannot be {explicit.label} here",
                f"possible: {', '.join(listed(sorted(allowed)))}",
                tensor=tensor.name,
            )
        if not explicit.fits(columns):
            raise InputError(
                f"cannot be {explicit.label}: its rows of {columns} weights are no multiple of {explicit.multiple}",
                "take q8_0, or leave the choice to gemmaq",
                tensor=tensor.name,
            )
        return explicit, None
    keep = recipe.keep or (tensor.place.role.is_table and not recipe.body.is_float)
    if keep and not stored.is_float:
        held = [e for e in (stored, *ENCODINGS.values()) if e.name in allowed]
        same = [e for e in held if e.same_codes(stored)]
        same += sorted((e for e in held if e.refines(stored, columns)), key=lambda e: -e.block)
        if same:
            return same[0], None
    if default.fits(columns):
        return default, None
    other = ENCODINGS[fallback or "f16"]
    if not other.fits(columns) or other.name not in allowed:
        other = ENCODINGS["f16" if "f16" in allowed else "bf16"]
    reason = f"whose blocks of {default.multiple} do not fit rows of {columns}"
    return other, f"{other.label} instead of {default.label}, {reason}"


def folder() -> Path:
    """Folder of the recipes that come with gemmaq: in the package when installed, next to it in a clone."""
    inside = Path(__file__).parents[1] / "recipes"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"


def load(name: str) -> RecipeFile:
    """Read a recipe by the name of a shipped one or by its path.

    Raises:
        NotFoundError: there is no such recipe.
        UsageError: it is not TOML, or has an unknown key or value.
    """
    path = Path(name) if name.endswith(".toml") or "/" in name else folder() / f"{name}.toml"
    if not path.is_file():
        known = sorted(p.stem for p in folder().glob("*.toml"))
        raise NotFoundError(f"there is no recipe {name}", f"recipes: {', '.join(nearest(name, known) or known)}")
    try:
        document = tomllib.loads(read_text(path))
        check_depth(document)
    except InputError as error:
        raise UsageError(f"is not valid TOML: it {error.problem}", path=path) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"is not valid TOML: {error}", path=path) from error
    with refused(path, UsageError):
        return _parsed(document, path)


def _parsed(document: dict[str, Any], path: Path) -> RecipeFile:
    """The recipe in a document; errors as in `load`."""
    _check_keys(document, tuple(field.name for field in fields(RecipeFile)), str(path))
    entries = document.get("rules", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError("rules must be tables, [[rules]]", path=path)
    return RecipeFile(
        description=_text(document, "description", path) or "",
        to=_texts(document, "to", path),
        quant=_texts(document, "quant", path),
        embedding=_text(document, "embedding", path),
        method=_text(document, "method", path),
        rules=tuple(_rule(entry, path) for entry in entries),
        ple_type=_text(document, "ple_type", path),
        ple_proj_type=_text(document, "ple_proj_type", path),
    )


def _rule(entry: dict[str, Any], path: Path) -> Rule:
    _check_keys(entry, ("match", "regex", "type", "method"), f"{path}, [[rules]]")
    pattern, expression, kind, method = (_text(entry, key, path) for key in ("match", "regex", "type", "method"))
    if pattern is None and expression is None:
        raise UsageError("a rule has no match", 'write match = "*.layers.0.*", for example', path=path)
    if pattern is not None and expression is not None:
        raise UsageError("a rule has both match and regex", "write two rules", path=path)
    if method is not None:
        methods.check(method)
    encoding = single(kind) if kind else None
    return regex(expression, encoding, method) if expression is not None else Rule(pattern or "", encoding, method)


def _check_keys(entry: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            raise unknown("key", key, known).at(path=where)


def _texts(entry: dict[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = entry.get(key, [])
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise UsageError(f"{key} must be a text or a list of texts", path=path)
    return tuple(values)


def _text(entry: dict[str, Any], key: str, path: Path) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{key} must be a text", path=path)
    return value
