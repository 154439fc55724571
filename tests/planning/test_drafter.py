"""The plan of a drafter beside its target: the target's type, a method that runs no model, names of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import gemma4
import gemma4_drafter
from gemma4_drafter import DRAFTERS
from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.drafters import with_drafter
from gemmaq.containers import gguf, mlx
from gemmaq.errors import UsageError
from gemmaq.planning.drafter import PREFIX, divided, prefixed
from gemmaq.planning.drafter import with_drafter as planned_with
from gemmaq.planning.format import Format
from gemmaq.planning.plan import Plan
from gemmaq.planning.planner import make_plan
from gemmaq.planning.recipe import Rule, of
from gemmaq.planning.request import Request
from gemmaq.sources.open import open_source


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model with its drafter."""
    root = tmp_path_factory.mktemp("planned")
    target = open_source(str(gemma4.write(root / "target", gemma4.DENSE)))
    drafter = gemma4_drafter.write(root / "drafter", DRAFTERS["dense"], tokenizer=False)
    return with_drafter(target, open_source(str(drafter)))


def plan(checkpoint: Checkpoint, request: Request, target: Format = gguf.FORMAT) -> Plan:
    own = make_plan(checkpoint, request, target)
    return planned_with(own, checkpoint, request, target, {})


def test_names_in_the_plan_are_kept_apart(checkpoint: Checkpoint) -> None:
    made = plan(checkpoint, Request(of("q4_0"), ("gguf",), draft=True))
    assert made.drafter is not None
    names = [tensor.name for tensor in made.everything]
    sources = [tensor.source.name for tensor in made.everything]
    constants = [array.name for array in made.constants]
    assert len(set(names)) == len(names) and len(set(sources)) == len(sources)
    assert constants == ["rope_freqs.weight", f"{PREFIX}rope_freqs.weight"]
    assert all(tensor.name.startswith(PREFIX) for tensor in made.drafter.everything)
    assert made.own == make_plan(checkpoint, Request(of("q4_0"), ("gguf",)), gguf.FORMAT).own
    assert made.tensor_bytes < sum(tensor.nbytes for tensor in made.everything)


def test_a_drafter_has_the_type_of_its_target_and_none_of_its_exceptions(checkpoint: Checkpoint) -> None:
    rules = (Rule("*.layers.0.*", of("q8_0").body, None),)
    request = Request(of("q4_k_m", embedding="q8_0", rules=rules), ("gguf",), draft=True)
    drafter = plan(checkpoint, request).drafter
    assert drafter is not None and drafter.label == "Q4_K_M"
    kinds = {tensor.name.removeprefix(PREFIX): tensor.encoding.name for tensor in drafter.tensors}
    assert kinds["blk.0.ffn_up.weight"] == "q4_k" and kinds["token_embd.weight"] == "q6_k"
    calibrated = plan(checkpoint, Request(of("q4_0", method="gptq"), ("gguf",), draft=True)).drafter
    assert calibrated is not None and {tensor.choice.method for tensor in calibrated.tensors} == {"nearest"}


def test_a_drafter_is_q4_0_where_the_targets_type_needs_an_importance_matrix(checkpoint: Checkpoint) -> None:
    made = plan(checkpoint, Request(of("q2_k_s", method="importance"), ("gguf",), draft=True))
    assert made.label == "Q2_K_S" and made.drafter is not None and made.drafter.label == "Q4_0"
    kinds = {tensor.encoding.name for tensor in made.drafter.tensors}
    assert "q4_0" in kinds and "q2_k" not in kinds
    assert checkpoint.drafter is not None
    with pytest.raises(UsageError, match="Q2_K_S needs an importance matrix"):
        make_plan(checkpoint.drafter, Request(of("q2_k_s"), ("gguf",)), gguf.FORMAT)


def test_a_quantized_drafter_keeps_its_types(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert checkpoint.drafter is not None
    from inprocess import run

    source = gemma4_drafter.write(tmp_path / "d-assistant", DRAFTERS["dense"])
    run("convert", source, "--quant", "q8_0", "-q", "-o", tmp_path / "out")
    quantized = replace(checkpoint, drafter=open_source(str(tmp_path / "out")))
    made = plan(quantized, Request(of("q4_0"), ("gguf",), draft=True))
    assert made.drafter is not None and made.drafter.label == "Q8_0" and made.label == "Q4_0"
    floats = plan(quantized, Request(of("f16"), ("gguf",), draft=True)).drafter
    assert floats is not None and floats.label == "F16"


def test_a_drafter_is_planned_where_it_is_asked_for_and_has_a_place(checkpoint: Checkpoint) -> None:
    assert plan(checkpoint, Request(of("q4_0"), ("gguf",))).drafter is None
    alone = replace(checkpoint, drafter=None)
    assert plan(alone, Request(of("q4_0"), ("gguf",), draft=True)).drafter is None
    elsewhere = plan(checkpoint, Request(of("q4_0"), ("mlx",), draft=True), mlx.FORMAT)
    assert elsewhere.drafter is None
    assert "the drafter is left out of mlx, whose runtimes load the folder that it comes in" in elsewhere.notes


def test_values_are_divided_by_their_prefix() -> None:
    both = {"a": 1, **prefixed({"a": 2})}
    assert divided(both) == ({"a": 1}, {"a": 2})
