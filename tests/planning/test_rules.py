"""Rules: shell patterns of canonical names, regular expressions in GGUF names."""

from __future__ import annotations

import pytest

from gemmaq.checkpoint import Checkpoint
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import UsageError
from gemmaq.models.roles import Role
from gemmaq.planning.recipe import of
from gemmaq.planning.rules import Rule, is_free, regex, resolved

Q8_0 = ENCODINGS["q8_0"]


def names(checkpoint: Checkpoint, pattern: str) -> set[str]:
    """GGUF names of the tensors that a regular expression stands for."""
    (rule,) = resolved((regex(pattern, Q8_0),), checkpoint)
    found = {name for name in checkpoint.tensors if rule.matches(name)}
    assert found == rule.names
    return {checkpoint.family.names.to_gguf(name) for name in found}


def test_a_regular_expression_is_searched_in_gguf_names_whatever_the_case(checkpoint: Checkpoint) -> None:
    assert names(checkpoint, "attn_v") == names(checkpoint, "ATTN_V") == {f"blk.{at}.attn_v.weight" for at in (0, 1)}
    assert names(checkpoint, r"blk\.1\.ffn") == {f"blk.1.ffn_{part}.weight" for part in ("down", "gate", "up")}
    assert names(checkpoint, "^token_embd") == {"token_embd.weight"}


def test_tensors_that_stay_floats_are_not_meant(checkpoint: Checkpoint) -> None:
    assert names(checkpoint, "attn_q") == {f"blk.{at}.attn_q.weight" for at in (0, 1)}  # and no attn_q_norm
    assert is_free(Role.MATRIX) and is_free(Role.LAYER_PROJECTION) and not is_free(Role.NORM)


@pytest.mark.parametrize("pattern", ["attn_x", "norm", "q_proj", "^weight"])
def test_a_regular_expression_that_stands_for_nothing_is_refused(checkpoint: Checkpoint, pattern: str) -> None:
    with pytest.raises(UsageError, match=f"'{pattern.replace('^', '.')}' is in the name of no tensor") as caught:
        resolved((regex(pattern, Q8_0),), checkpoint)
    assert "blk.1." in str(caught.value.hint)


def test_what_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(UsageError, match="'attn_\\[' is not a regular expression: unterminated"):
        regex("attn_[", Q8_0)


def test_rules_with_shell_patterns_stay_as_they_are(checkpoint: Checkpoint) -> None:
    rule = Rule("*.layers.[01].*", Q8_0, None)
    assert resolved((rule,), checkpoint) == (rule,)
    assert rule.matches("model.layers.1.x") and not rule.matches("model.layers.2.x")


def test_the_first_rule_that_matches_counts_for_types_and_for_methods(checkpoint: Checkpoint) -> None:
    rules = (
        regex("attn_k", ENCODINGS["q5_0"]),
        Rule("*.self_attn.*", Q8_0, "nearest"),
        regex("attn_", ENCODINGS["q4_1"], "lattice"),
    )
    recipe = of("q4_0", rules=rules).resolved(checkpoint)
    layer = "model.layers.0.self_attn."
    types = [recipe.asked(checkpoint.tensors[f"{layer}{part}_proj.weight"]) for part in "kq"]
    assert types == [ENCODINGS["q5_0"], Q8_0]
    assert [recipe.method_for(f"{layer}{part}_proj.weight") for part in "kq"] == ["nearest", "nearest"]
    assert recipe.method_for("model.layers.0.mlp.up_proj.weight") == "auto"
