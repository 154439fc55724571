"""Rules: exceptions by the names of tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import Encoding
from gemmaq.errors import UsageError
from gemmaq.models.roles import Role


@dataclass(frozen=True, slots=True)
class Rule:
    """Type and method of tensors with certain names; None leaves the choice to the recipe.

    Attributes:
        pattern: shell pattern of the canonical name, or a regular expression that is searched in the GGUF name.
        encoding: their type.
        method: their method.
        is_regex: whether the pattern is a regular expression.
        names: canonical names that a regular expression stands for in a model; filled in when a plan is made.
    """

    pattern: str
    encoding: Encoding | None
    method: str | None
    is_regex: bool = False
    names: frozenset[str] = frozenset()

    def matches(self, name: str) -> bool:
        """Whether a tensor with this canonical name is meant."""
        return name in self.names if self.is_regex else fnmatchcase(name, self.pattern)


def regex(pattern: str, encoding: Encoding | None, method: str | None = None) -> Rule:
    """A rule for tensors whose GGUF name contains what a regular expression describes, in upper or lower case.

    Raises:
        UsageError: it is no regular expression.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is not a regular expression: {error}", "attn_v, for example") from error
    return Rule(pattern, encoding, method, is_regex=True)


def resolved(rules: tuple[Rule, ...], checkpoint: Checkpoint) -> tuple[Rule, ...]:
    """Rules with the names that their regular expressions stand for in a model.

    Raises:
        UsageError: one of them stands for none.
    """
    if not any(rule.is_regex for rule in rules):
        return rules
    to_gguf = checkpoint.family.names.to_gguf
    heads = checkpoint.embedder.heads if checkpoint.embedder is not None else {}
    tensors = (*checkpoint.tensors.values(), *checkpoint.idle.values(), *heads.values())
    names = {tensor.name: to_gguf(tensor.name) for tensor in tensors if is_free(tensor.place.role)}
    return tuple(_resolved(rule, names) for rule in rules)


def is_free(role: Role) -> bool:
    """Whether the type of tensors of this role can be chosen."""
    return role.is_quantizable or role in (Role.LAYER_PROJECTION, Role.FLOAT)


def _resolved(rule: Rule, names: Mapping[str, str]) -> Rule:
    """A rule with its names, given the GGUF name of every canonical name."""
    if not rule.is_regex:
        return rule
    found = frozenset(name for name, gguf in names.items() if re.search(rule.pattern, gguf, re.IGNORECASE))
    if not found:
        last = [*names.values()][-1]
        raise UsageError(
            f"{rule.pattern!r} is in the name of no tensor whose type can be chosen",
            f"names are those of GGUF files, {last} for example",
        )
    return replace(rule, names=found)
