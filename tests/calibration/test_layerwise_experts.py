"""GPTQ of experts: each on the tokens that are routed to it, and rounded if there are too few."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
from calibrating import as_f32, dense, opened, planned, problems_of, read_back
from gemmaq.calibration import floor, gptq, layerwise
from gemmaq.calibration.store import Store
from gemmaq.encodings import ENCODINGS, dequantize
from gemmaq.methods import Choice, quantize
from gemmaq.planning.recipe import Rule
from gemmaq.progress import ignore
from gemmaq.sources.open import open_source

pytestmark = pytest.mark.usefixtures("torch_and_transformers")
STACKS = ("experts.gate_up_proj", "experts.down_proj")


def inputs_of_experts(folder: Path, tokens: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Inputs of the experts of the first layer in transformers: part -> f64 [tokens, columns] for every expert."""
    import torch
    from transformers import Gemma4ForCausalLM

    loaded = Gemma4ForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager").eval()
    seen: list[tuple[Any, ...]] = []
    experts = loaded.model.layers[0].experts
    experts.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    with torch.no_grad():
        loaded(input_ids=torch.from_numpy(tokens))
        x, chosen, _ = seen[0]
        found: dict[str, list[np.ndarray]] = {part: [] for part in STACKS}
        for expert in range(16):
            some = x[(chosen == expert).any(1)]
            gate, up = (some @ experts.gate_up_proj[expert].T).chunk(2, -1)
            found[STACKS[0]].append(some.double().numpy())
            found[STACKS[1]].append((experts.act_fn(gate) * up).double().numpy())
    return found


def test_every_expert_is_solved_on_its_own_tokens(tokens: np.ndarray, tmp_path: Path) -> None:
    folder = gemma4.write(tmp_path / "gemma-4-tiny", gemma4.EXPERTS)
    checkpoint = open_source(str(folder))
    few = tokens[:1, :70]
    inputs = inputs_of_experts(folder, few)
    rules = tuple(Rule(pattern, None, "nearest") for pattern in ("*.layers.[1-5].*", "*.embed_tokens.*"))
    problems = {p.source.name: p for p in problems_of(planned(checkpoint, rules=rules)[0])}
    more = [replace(p, encoding=ENCODINGS["q5_1"]) for p in problems.values() if p.source.matrices > 1]
    (tmp_path / "codes").mkdir()
    with opened(checkpoint) as net:
        solved = layerwise.quantize(
            net,
            few,
            [*problems.values(), *more],
            settings=gptq.Settings(),
            store=Store(tmp_path / "codes"),
            progress=ignore,
        )
        for part in STACKS:
            name = f"model.layers.0.{part}"
            problem = problems[name]
            found = read_back(solved.tensors[problem]).codes.reshape(16, -1, problem.source.columns)
            other = read_back(solved.tensors[replace(problem, encoding=ENCODINGS["q5_1"])])
            assert dequantize(ENCODINGS["q5_1"], other).shape == (16 * found.shape[1], found.shape[2])
            whole = dense(checkpoint, name).reshape(found.shape)
            for expert, x in enumerate(inputs[part]):
                if len(x) < floor.LEAST_SOLVED:
                    wanted = quantize(whole[expert], ENCODINGS["q4_0"], Choice("nearest")).codes
                    np.testing.assert_array_equal(found[expert], wanted)
                    continue
                known = gptq.invert(as_f32(x.T @ x), gptq.Settings(), blocks=gptq.Blocks(32), device=net.device)
                wanted = gptq.quantize(whole[expert], known, ENCODINGS["q4_0"], portable=False, device=net.device).codes
                assert (found[expert] == wanted).mean() > 0.99
    assert set(problems) == {n for n, t in checkpoint.matrices.items() if t.place.layer == 0}
    assert set(solved.tensors) == {*problems.values(), *more}
    scarce = sum(len(x) < floor.LEAST_SOLVED for x in inputs[STACKS[0]])
    assert 0 < scarce < 16
    (told,) = solved.warnings(list(problems.values()))
    assert solved.warnings([p for p in problems.values() if p.source.matrices == 1]) == ()
    assert re.match(f"{scarce} of 16 experts, in 1 of 1 layers, saw fewer than 16 tokens: they are rounded", told)
