"""Recipes: the type and method of every tensor, from flags or from a file in recipes/."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gemmaq import methods
from gemmaq.checkpoint import Tensor
from gemmaq.encodings import ENCODINGS, Encoding, find
from gemmaq.errors import InputError, NotFoundError, UsageError
from gemmaq.methods import METHODS, Needs
from gemmaq.models.config import TextConfig
from gemmaq.planning.mixtures import MIXTURES, Mixture, Spot

TYPES = tuple(dict.fromkeys((*ENCODINGS, *MIXTURES)))
"""Types that a user may ask for, besides `auto`."""
AUTO = "auto"
"""Keep the types of a quantized source."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Type and method of tensors whose canonical name matches a shell pattern; None leaves the choice to the recipe."""

    pattern: str
    encoding: Encoding | None
    method: str | None


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
    """

    body: Encoding
    embedding: Encoding | None = None
    method: str = "auto"
    rules: tuple[Rule, ...] = ()
    keep: bool = False
    mixture: Mixture | None = None

    @property
    def label(self) -> str:
        """Type of the body as in file names (`Q4_0`, `Q4_K_M`, `auto`)."""
        return AUTO if self.keep else (self.mixture or self.body).label

    def body_for(self, tensor: Tensor, config: TextConfig) -> Encoding:
        """The encoding of a matrix of a layer."""
        layer = tensor.place.layer
        if self.mixture is None or layer is None:
            return self.body
        shape = config.layers[layer]
        method = METHODS.get(self.method_for(tensor.name))
        weighted = method is not None and method.needs is Needs.IMPORTANCE
        spot = Spot(tensor.place.kind, layer, len(config.layers), shape.heads // shape.kv_heads, weighted)
        return self.mixture.encoding_of(spot)

    def method_for(self, name: str) -> str:
        """The method of a tensor, by its canonical name."""
        matches = (r.method for r in self.rules if r.method is not None and fnmatchcase(name, r.pattern))
        return next(matches, self.method)


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """Content of a recipe file; None for keys that it leaves out.

    Attributes:
        description: purpose of the recipe, and the size of its results.
        to: containers.
        quant: type of the body.
        embedding: type of the embedding.
        method: name of a method, or `auto`.
        rules: exceptions by name.
    """

    description: str
    to: tuple[str, ...]
    quant: str | None
    embedding: str | None
    method: str | None
    rules: tuple[Rule, ...]


def of(quant: str, *, embedding: str | None = None, method: str = "auto", rules: tuple[Rule, ...] = ()) -> Recipe:
    """A recipe from names of types and methods, in upper or lower case.

    Args:
        quant: one of `TYPES`, or `auto`.
        embedding: name of an encoding, None to let the container choose.
        method: name of a method, or `auto`.
        rules: exceptions by name.

    Raises:
        UsageError: a type or method is unknown.
    """
    keep, mixture = quant.lower() == AUTO, MIXTURES.get(quant.lower())
    body = mixture.body if mixture else find("q4_0" if keep else quant, TYPES)
    return Recipe(body, find(embedding) if embedding else None, methods.check(method), rules, keep, mixture)


def encoding_for(
    recipe: Recipe, tensor: Tensor, config: TextConfig, *, default_embedding: str, allowed: frozenset[str]
) -> tuple[Encoding, str | None]:
    """The encoding of a tensor, and the reason if it is not the requested one.

    Args:
        recipe: the request.
        tensor: matrix or table to be quantized.
        config: dimensions of the model.
        default_embedding: type of an embedding for which the recipe has none.
        allowed: names of the encodings that the container can hold.

    Raises:
        InputError: a type requested for this tensor cannot hold it.
    """
    columns, stored = tensor.columns, tensor.encoding
    by_rule = next((r.encoding for r in recipe.rules if r.encoding and fnmatchcase(tensor.name, r.pattern)), None)
    is_embedding = tensor.place.role.is_table
    explicit = by_rule or (recipe.embedding if is_embedding else None)
    if explicit is not None:
        if explicit.name not in allowed:
            raise InputError(
                f"cannot be {explicit.label} here", f"possible: {', '.join(sorted(allowed))}", tensor=tensor.name
            )
        if not explicit.fits(columns):
            raise InputError(
                f"cannot be {explicit.label}: its rows of {columns} weights are no multiple of {explicit.block}",
                "take q8_0, or leave the choice to gemmaq",
                tensor=tensor.name,
            )
        return explicit, None
    keep = recipe.keep or (is_embedding and not recipe.body.is_float)
    if keep and not stored.is_float:
        same = [e for e in (stored, *ENCODINGS.values()) if e.name in allowed and e.same_codes(stored)]
        if same:
            return same[0], None
    requested = ENCODINGS[default_embedding] if is_embedding else recipe.body_for(tensor, config)
    if requested.fits(columns):
        return requested, None
    fallback = ENCODINGS[requested.fallback or "f16"]
    if not fallback.fits(columns) or fallback.name not in allowed:
        fallback = ENCODINGS["f16" if "f16" in allowed else "bf16"]
    reason = f"whose blocks of {requested.block} do not fit rows of {columns}"
    return fallback, f"{fallback.label} instead of {requested.label}, {reason}"


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
        near = difflib.get_close_matches(name, known, 1) or known
        raise NotFoundError(f"there is no recipe {name}", f"recipes: {', '.join(near)}")
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"is not valid TOML: {error}", path=path) from error
    _check_keys(document, ("description", "to", "quant", "embedding", "method", "rules"), str(path))
    entries = document.get("rules", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError("rules must be tables, [[rules]]", path=path)
    to = document.get("to", [])
    to = [to] if isinstance(to, str) else to
    if not isinstance(to, list) or not all(isinstance(container, str) for container in to):
        raise UsageError("to must be a text or a list of texts", path=path)
    return RecipeFile(
        description=_text(document, "description", path) or "",
        to=tuple(to),
        quant=_text(document, "quant", path),
        embedding=_text(document, "embedding", path),
        method=_text(document, "method", path),
        rules=tuple(_rule(entry, path) for entry in entries),
    )


def _rule(entry: dict[str, Any], path: Path) -> Rule:
    _check_keys(entry, ("match", "type", "method"), f"{path}, [[rules]]")
    pattern, kind, method = (_text(entry, key, path) for key in ("match", "type", "method"))
    if pattern is None:
        raise UsageError("a rule has no match", 'write match = "*.layers.0.*", for example', path=path)
    if method is not None:
        methods.check(method)
    return Rule(pattern, find(kind) if kind else None, method)


def _check_keys(entry: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, cutoff=0) or list(known)
            raise UsageError(f"unknown key {key!r}", f"did you mean {near[0]!r}?", path=where)


def _text(entry: dict[str, Any], key: str, path: Path) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{key} must be a text", path=path)
    return value
