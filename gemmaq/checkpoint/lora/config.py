"""adapter_config.json of PEFT: which modules an adapter changes, and by how much.

Source of the rules: `peft.tuners.tuners_utils.check_target_module_exists`, `peft.utils.other.get_pattern_key` and
`peft.tuners.lora`, PEFT 0.21.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemmaq.errors import InputError
from gemmaq.files.malformed import refused
from gemmaq.files.text import read_json

NAME = "adapter_config.json"
ALL_LINEAR = "all-linear"

_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of the names of initializations that change the base model's weights as well."""
_OTHER_MODELS = {
    "layer_replication": "repeats layers of the base model",
    "lora_bias": "has biases, and Gemma's matrices have none",
    "use_qalora": "pools the inputs of matrices (QALoRA)",
    "use_bdlora": "is block-diagonal (BD-LoRA)",
    "arrow_config": "chooses among adapters for every token (Arrow)",
    "kasa_config": "changes the singular values of the base model (KaSA)",
    "monteclora_config": "draws its weights at random (MonteCLoRA)",
    "megatron_config": "is one of Megatron's parallel layers",
}
"""Key of the config -> what an adapter with it does, which is no sum with the weights."""


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """A LoRA adapter by its config.

    Attributes:
        path: The config's file, for errors.
        base: Path or repository of the base model, None if it is not named.
        revision: Revision of that repository, None for the newest.
        rank: Rank of matrices that no pattern names.
        alpha: Numerator of the scaling of matrices that no pattern names.
        ranks: Regular expression of modules -> their rank.
        alphas: Regular expression of modules -> their alpha.
        rank_stabilized: Whether alpha is divided by the root of the rank.
        magnitudes: Whether every matrix has norms of its own (DoRA).
        targets: Modules that are changed, by their ends, or one regular expression.
        excluded: Modules among these that are not, in the same two forms.
        layers: Numbers of the layers to change, None for all.
        layer_patterns: Names of the lists that these layers are in, empty for any.
        parameters: Parameters that are changed although no module of their own holds them.
        saved: Modules that are stored whole.
        biases: Which biases are stored: `none`, `all` or `lora_only`.
        tokens: Module -> rows of its table that are stored; the empty name is that of the token embedding.
        ties: Whether changes of the embedding are changes of a tied head, too.
        invocation: Tokens from which on the adapter is active (aLoRA); empty for always.
    """

    path: Path
    base: str | None
    revision: str | None
    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rank_stabilized: bool
    magnitudes: bool
    targets: str | tuple[str, ...]
    excluded: str | tuple[str, ...]
    layers: tuple[int, ...] | None
    layer_patterns: tuple[str, ...]
    parameters: tuple[str, ...]
    saved: tuple[str, ...]
    biases: str
    tokens: Mapping[str, tuple[int, ...]]
    ties: bool
    invocation: tuple[int, ...]

    def changes(self, module: str) -> bool:
        """Whether a module gets a matrix of low rank."""
        if self.excluded and _is_named(self.excluded, module, self.path):
            return False
        if any(_match(rf"(^|.*\.){name}($|\..*)", module, self.path) is not None for name in self.saved):
            return False
        if not isinstance(self.targets, str):
            return module in self.targets or (_is_named(self.targets, module, self.path) and self._is_in_layers(module))
        return self.targets.lower() == ALL_LINEAR or _is_named(self.targets, module, self.path)

    def _is_in_layers(self, module: str) -> bool:
        if not self.layers:
            return True
        patterns = [rf"(?:^|.*?\.){pattern}\.(?P<at>\d+)\." for pattern in self.layer_patterns]
        for pattern in patterns or [r".*?\.[^.]*\.(?P<at>\d+)\."]:
            match = _match(pattern, module, self.path)
            if match is not None:
                return int(match["at"]) in self.layers
        return False

    def saves(self, module: str) -> bool:
        """Whether a module is stored whole, by the end of its name or of that of a module around it."""
        parts = module.split(".")
        around = tuple(".".join(parts[: at + 1]) for at in range(len(parts)))
        return any(name.endswith(self.saved) for name in around)

    def rank_of(self, module: str) -> int:
        """Rank of a module's matrix."""
        return self.ranks.get(self._pattern(self.ranks, module), self.rank)

    def scaling(self, module: str) -> float:
        """Factor of a module's matrix."""
        alpha, rank = self.alphas.get(self._pattern(self.alphas, module), self.alpha), self.rank_of(module)
        return alpha / math.sqrt(rank) if self.rank_stabilized else alpha / rank

    def _pattern(self, patterns: Mapping[str, Any], module: str) -> str:
        """The first of the patterns that the end of a module's name matches, else the name."""
        return next((p for p in patterns if _match(rf"(.*\.)?({p})$", module, self.path) is not None), module)


def _match(pattern: str, text: str, path: Path, *, whole: bool = False) -> re.Match[str] | None:
    try:
        return re.fullmatch(pattern, text) if whole else re.match(pattern, text)
    except re.error as error:
        raise InputError(f"has a broken regular expression {pattern!r:.80}: {error}", path=path) from error


def _is_named(names: str | tuple[str, ...], module: str, path: Path) -> bool:
    """Whether a regular expression matches a module wholly, or one of several names is its end."""
    if isinstance(names, str):
        return _match(names, module, path, whole=True) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def read(path: Path) -> LoraConfig:
    """Read an adapter_config.json.

    Raises:
        NotFoundError: There is none.
        InputError: It is not that of a LoRA adapter which adds to weights, or is malformed.
    """
    document = read_json(path)
    with refused(path):
        _check_kind(document, path)
        return _config(document, path)


def _check_kind(document: Mapping[str, Any], path: Path) -> None:
    kind = document.get("peft_type")
    if kind is None and ("lora_parameters" in document or "fine_tune_type" in document):
        raise InputError(
            "is that of an adapter of mlx-lm, which is not read",
            "merge it with mlx_lm.fuse, and convert the folder that it writes",
            path=path,
        )
    if kind != "LORA":
        raise InputError(
            f"is that of a {kind} adapter, which is not merged" if kind else "names no peft_type",
            "only LoRA and DoRA adapters are: merge it with PEFT's merge_and_unload, and convert the result",
            path=path,
        )
    for key, what in _OTHER_MODELS.items():
        if document.get(key):
            raise InputError(f"says {key}: the adapter {what}", "it cannot be merged", path=path)
    start = document.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise InputError(
            f"says init_lora_weights {start}: the adapter belongs to a base model that was changed with it",
            "save it with PEFT's path_initial_model_for_weight_conversion, which makes it a usual adapter",
            path=path,
        )


def _config(document: Mapping[str, Any], path: Path) -> LoraConfig:
    rank, alpha = document.get("r", 8), document.get("lora_alpha", 8)
    ranks, alphas = (_object(document, key) for key in ("rank_pattern", "alpha_pattern"))
    if not all(_is_rank(value) for value in (rank, *ranks.values())):
        raise ValueError(f"a rank is no whole number from 1 on: r {rank!r:.40}, rank_pattern {ranks!r:.80}")
    if not all(_is_number(value) for value in (alpha, *alphas.values())):
        raise ValueError(f"an alpha is no number: lora_alpha {alpha!r:.40}, alpha_pattern {alphas!r:.80}")
    base, revision = document.get("base_model_name_or_path"), document.get("revision")
    layers = document.get("layers_to_transform")
    bias = document.get("bias", "none")
    if bias not in ("none", "all", "lora_only"):
        raise ValueError(f"bias is {bias!r:.40}, not none, all or lora_only")
    return LoraConfig(
        path=path,
        base=base if isinstance(base, str) and base else None,
        revision=revision if isinstance(revision, str) and revision else None,
        rank=rank,
        alpha=float(alpha),
        ranks=ranks,
        alphas={key: float(value) for key, value in alphas.items()},
        rank_stabilized=bool(document.get("use_rslora")),
        magnitudes=bool(document.get("use_dora")),
        targets=_names(document, "target_modules"),
        excluded=_names(document, "exclude_modules"),
        layers=None if layers is None else _numbers([layers] if isinstance(layers, int) else layers),
        layer_patterns=_list(document, "layers_pattern"),
        parameters=_list(document, "target_parameters"),
        saved=_list(document, "modules_to_save"),
        biases=bias,
        tokens=_tokens(document.get("trainable_token_indices")),
        ties=bool(document.get("ensure_weight_tying")),
        invocation=_numbers(document.get("alora_invocation_tokens") or []),
    )


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _object(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise TypeError(f"{key} is {value!r:.60}, not an object")
    return value


def _names(document: Mapping[str, Any], key: str) -> str | tuple[str, ...]:
    value = document.get(key)
    return value if isinstance(value, str) else _list(document, key)


def _list(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key) or []
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{key} is {value!r:.60}, not a list of names")
    return tuple(value)


def _numbers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value):
        raise TypeError(f"{value!r:.60} is no list of whole numbers")
    return tuple(value)


def _tokens(value: Any) -> dict[str, tuple[int, ...]]:
    """Rows of tables that are stored, by module; a list alone is for the token embedding."""
    if not value:
        return {}
    return {name: _numbers(rows) for name, rows in value.items()} if isinstance(value, dict) else {"": _numbers(value)}
