"""vLLM loads int4 folders and answers like transformers with the same weights in F32."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
import gemma4_tokenizer
import synthetic
from gemmaq.models.gemma3.names import shapes
from inprocess import run
from oracles import need_vllm
from runtimes import Require, need, vllm

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

PROMPT = [2, *(100 + 7 * i * i % 199 for i in range(39))]
"""Longer than the sliding window of the Gemma 4 models."""
COUNT = 8
KINDS = ("gemma3", *gemma4.KINDS)
"""Models, all in int4 in groups of 32."""
FORMS = ("int4-g64", "int4-g128", "int4-channel")
"""Types of a small Gemma 3. vLLM has no kernel for int8 weights on a CPU, neither in groups nor with a scale a row."""
LAST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm", "post_per_layer_input_norm")
"""The norms behind which a part of a layer joins the residual stream."""
QUIET = 0.1
"""Times the usual size, what the layers add: random layers of full size would make rounding errors grow to chaos."""
NOISE = 0.5
"""Of what quantization changes. Measured: 0.05 to 0.35 by BF16; 0.55 and more by other weights in one matrix."""


@dataclass(frozen=True)
class Answer:
    """The prompt with the tokens chosen after it, and the log-probabilities of all but the first, f32 [tokens - 1]."""

    ids: list[int]
    logprobs: np.ndarray


def write(folder: Path, kind: str, sample: Path) -> Path:
    """A BF16 folder of one kind."""
    if kind not in gemma4.KINDS:
        small = synthetic.TINY if kind == "gemma3" else synthetic.EVEN
        synthetic.write_checkpoint(folder, small, tokenizer=sample)
        tensors = dict(synthetic.weights(small))
        for name in tensors:
            if is_last_norm(name):
                tensors[name] = synthetic.bf16(np.full(tensors[name].shape, QUIET - 1))
        layout = {name: ("BF16", shape) for name, shape in shapes(small)}
        synthetic.write_safetensors(folder / "model.safetensors", layout, tensors)
        return folder
    config = gemma4.KINDS[kind]
    weights = {name: values * (QUIET if is_last_norm(name) else 1) for name, values in gemma4.weights(config)}
    return gemma4_tokenizer.write(gemma4.write(folder, config, weights))


def is_last_norm(name: str) -> bool:
    return name.removesuffix(".weight").endswith(LAST_NORMS)


@pytest.fixture(scope="module")
def folders(sample_bf16: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind or form -> a folder in int4."""
    root = tmp_path_factory.mktemp("vllm")
    for kind in (*KINDS, *FORMS):
        source, quant = write(root / "bf16" / kind, kind, sample_bf16), kind if kind in FORMS else "q4_0"
        run("convert", source, "--to", "safetensors", "--quant", quant, "--portable", "-o", root / kind)
    return {kind: root / kind for kind in (*KINDS, *FORMS)}


@pytest.fixture(scope="module")
def answers(folders: dict[str, Path], require: Require) -> dict[str, Answer]:
    """What vLLM answers, all folders in one process: vLLM takes longer to import than to load."""
    need_vllm(require)
    jobs = [{"folder": str(folder), "ids": PROMPT, "count": COUNT} for folder in folders.values()]
    found = vllm(jobs)
    return {kind: Answer(a["ids"], np.array(a["logprobs"])) for kind, a in zip(folders, found, strict=True)}


def logprobs(folder: Path, ids: list[int]) -> np.ndarray:
    """F32 [tokens - 1, vocabulary]: what transformers expects after each token but the last."""
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        result: np.ndarray = model.eval()(torch.tensor([ids])).logits[0, :-1].log_softmax(-1).numpy()
    return result


@pytest.mark.parametrize("kind", (*KINDS, *FORMS))
def test_vllm_answers_like_the_weights_in_f32(
    kind: str, folders: dict[str, Path], answers: dict[str, Answer], tmp_path: Path, require: Require
) -> None:
    need(require, "torch", "transformers")
    answer = answers[kind]
    assert answer.ids[: len(PROMPT)] == PROMPT and len(answer.ids) == len(PROMPT) + COUNT
    run("convert", folders[kind], "--to", "safetensors", "--quant", "f32", "-o", tmp_path / "f32")
    expected, before = (
        logprobs(tmp_path / "f32", answer.ids),
        logprobs(folders[kind].parent / "bf16" / kind, answer.ids),
    )
    tokens = np.arange(len(expected)), answer.ids[1:]
    ratio = distance(answer.logprobs, expected[tokens]) / distance(before[tokens], expected[tokens])
    assert ratio < NOISE
    assert expected.argmax(axis=1)[len(PROMPT) - 1 :].tolist() == answer.ids[len(PROMPT) :]


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The root of the mean square of the differences."""
    return float(np.sqrt(np.square(first - second).mean()))


def test_experts_have_the_names_that_vllm_reads(folders: dict[str, Path]) -> None:
    """One matrix each for gate, up and down of every expert; the router stays as it is."""
    from safetensors import safe_open

    with safe_open(folders["experts"] / "model.safetensors", "np") as file:
        names = set(file.keys())
    settings: dict[str, Any] = json.loads((folders["experts"] / "config.json").read_text())["quantization_config"]
    for expert in range(16):
        for part in "gate_proj", "up_proj", "down_proj":
            for array in "weight_packed", "weight_scale", "weight_shape":
                assert f"model.layers.0.experts.{expert}.{part}.{array}" in names
    assert "model.layers.0.router.proj.weight" in names
    assert "model.layers.0.router.proj" in settings["ignore"]
