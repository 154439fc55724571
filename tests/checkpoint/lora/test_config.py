"""adapter_config.json: its rules are PEFT's, and what is no LoRA adapter is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lora_files
import peft_adapters
from gemmaq.checkpoint.lora import config
from gemmaq.checkpoint.lora.config import LoraConfig
from gemmaq.errors import GemmaqError, InputError


def read(folder: Path, **changes: Any) -> LoraConfig:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(lora_files.config(**changes)))
    return config.read(path)


REFUSED = {
    "another method": ({"peft_type": "IA3"}, "IA3"),
    "prefix tuning": ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING"),
    "LoHa": ({"peft_type": "LOHA"}, "LOHA"),
    "AdaLoRA": ({"peft_type": "ADALORA"}, "ADALORA"),
    "no method": ({"peft_type": ""}, "names no peft_type"),
    "mlx-lm": ({"peft_type": None, "fine_tune_type": "lora", "lora_parameters": {}}, "mlx-lm"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
    "OLoRA": ({"init_lora_weights": "olora"}, "olora"),
    "LoftQ": ({"init_lora_weights": "loftq"}, "loftq"),
    "biases": ({"lora_bias": True}, "lora_bias"),
    "layers repeated": ({"layer_replication": [[0, 2]]}, "layer_replication"),
    "QALoRA": ({"use_qalora": True}, "use_qalora"),
    "rank zero": ({"r": 0}, "rank"),
    "a rank in words": ({"rank_pattern": {"q_proj": "four"}}, "rank"),
    "alpha is none": ({"lora_alpha": "x"}, "alpha"),
    "patterns are a list": ({"alpha_pattern": ["q_proj"]}, "alpha_pattern"),
    "modules are numbers": ({"target_modules": [1]}, "target_modules"),
    "tokens are words": ({"trainable_token_indices": ["a"]}, "whole numbers"),
    "an unknown bias": ({"bias": "some"}, "bias"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_refused_by_name(tmp_path: Path, case: str) -> None:
    changes, words = REFUSED[case]
    with pytest.raises(InputError) as caught:
        read(tmp_path, **changes)
    assert words in caught.value.message


def test_a_broken_pattern_is_named(tmp_path: Path) -> None:
    found = read(tmp_path, target_modules="(")
    with pytest.raises(InputError, match="regular expression"):
        found.changes("model.layers.0.self_attn.q_proj")


def test_scaling_follows_rank_alpha_and_patterns(tmp_path: Path) -> None:
    found = read(tmp_path, r=4, lora_alpha=8, rank_pattern={"layers.1.*k_proj": 16}, alpha_pattern={"o_proj": 3})
    assert found.scaling("layers.0.k_proj") == 2.0
    assert found.scaling("layers.1.self_attn.k_proj") == 0.5
    assert found.scaling("layers.0.o_proj") == 0.75
    assert read(tmp_path, r=4, lora_alpha=8, use_rslora=True).scaling("x") == 4.0


MODULES = [
    f"model.{inner}layers.{layer}.{part}"
    for inner in ("", "language_model.")
    for layer in (0, 1, 10)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.experts.0.up_proj", "input_layernorm")
] + ["model.embed_tokens", "lm_head", "model.norm"]
NAMES = st.lists(st.sampled_from(["q_proj", "up_proj", "layers.1.mlp.up_proj", "norm", "lm_head"]), max_size=3)
REGEXES = st.sampled_from([r".*q_proj", r".*layers\.1.*", r"lm_head", r"model\..*(q|up)_proj"])
PATTERNS = st.dictionaries(
    st.sampled_from(["q_proj", r"layers\.1\..*", r"^model.layers.0.mlp.up_proj", "proj", "1.mlp.up_proj"]),
    st.integers(1, 64), max_size=3,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    targets=st.one_of(NAMES, REGEXES), excluded=st.one_of(NAMES, REGEXES), saved=NAMES,
    layers=st.one_of(st.none(), st.lists(st.sampled_from([0, 1, 10]), max_size=2)),
    pattern=st.sampled_from([None, "layers", "blocks"]), ranks=PATTERNS, alphas=PATTERNS,
)  # fmt: skip
def test_modules_match_as_in_peft(
    tmp_path_factory: pytest.TempPathFactory,
    require: Callable[[bool, str], None],
    targets: Any, excluded: Any, saved: list[str], layers: Any, pattern: Any,
    ranks: dict[str, int], alphas: dict[str, int],
) -> None:  # fmt: skip
    require(peft_adapters.installed(), "peft")
    from peft import LoraConfig as PeftConfig
    from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists
    from peft.utils.other import get_pattern_key

    if isinstance(targets, str):
        layers = None
    pattern = pattern if layers is not None else None
    given = {
        "target_modules": targets, "exclude_modules": excluded, "modules_to_save": saved,
        "layers_to_transform": layers, "layers_pattern": pattern, "rank_pattern": ranks, "alpha_pattern": alphas,
    }  # fmt: skip
    theirs = PeftConfig(**given)
    ours = read(tmp_path_factory.getbasetemp(), **given)
    for module in MODULES:
        found = check_target_module_exists(theirs, module)
        expected = bool(found) and not isinstance(found, _ExcludedModule)
        assert ours.changes(module) == expected, module
        rank = ranks.get(get_pattern_key(ranks.keys(), module), 4)
        assert ours.rank_of(module) == rank
        assert ours.scaling(module) == alphas.get(get_pattern_key(alphas.keys(), module), 8) / rank


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


KEYS = (
    *lora_files.config(), "rank_pattern", "revision", "use_dora", "exclude_modules", "layers_to_transform",
    "layers_pattern", "trainable_token_indices", "target_parameters", "alora_invocation_tokens",
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
def test_any_content_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]) -> None:
    try:
        found = read(tmp_path_factory.getbasetemp(), **changes)
        found.changes("model.layers.0.q_proj")
        found.scaling("model.layers.0.q_proj")
    except GemmaqError as error:
        assert re.search(r"\w", error.message)
