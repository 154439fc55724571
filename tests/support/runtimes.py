"""The real 270M in transformers and in mlx-lm, both in float32, to compare what files hold; any folder in vLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.models.gemma3.names import from_gguf, place
from gemmaq.models.roles import Role
from oracles import read_gguf, vllm_python

if TYPE_CHECKING:
    import torch

_COMMA, _SPACE, _ONE_TO_NINE = 236764, 236743, (236770, 236778, 236800, 236812, 236810, 236825, 236832, 236828, 236819)
PROMPT = [2, _ONE_TO_NINE[0], *(token for digit in _ONE_TO_NINE[1:] for token in (_COMMA, _SPACE, digit)), _COMMA]
"""`1, 2, 3, 4, 5, 6, 7, 8, 9,`, after BOS: what follows is chosen by a margin that no rounding closes."""

Require = Callable[[bool, str], None]


def need(require: Require, *packages: str) -> None:
    """Skip, or fail, where one of the packages is not installed."""
    for name in packages:
        require(find_spec(name) is not None, name)


@dataclass(frozen=True)
class Text:
    """What the model makes of the prompt.

    Attributes:
        ids: the prompt and the eight tokens that follow it, greedily chosen.
        logits: f32 [tokens, vocabulary].
    """

    ids: list[int]
    logits: np.ndarray

    def agrees(self, logits: np.ndarray) -> bool:
        """Whether another model chooses the same eight tokens; by induction, each after the ones before."""
        first = len(PROMPT) - 1
        return logits[first:-1].argmax(axis=1).tolist() == self.ids[first + 1 :]

    def distance(self, logits: np.ndarray) -> float:
        """The largest difference of a logit, relative to the spread of all."""
        return float(np.abs(logits - self.logits).max() / np.ptp(self.logits))


def dense(folder: Path) -> Any:
    """A Hugging Face folder in transformers, f32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def whole(folder: Path) -> Any:
    """The same, with every tensor of the model in the folder, and no other."""
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def logits(model: Any, ids: list[int]) -> np.ndarray:
    """F32 [tokens, vocabulary]."""
    import torch

    with torch.no_grad():
        result: np.ndarray = model(torch.tensor([ids])).logits[0].numpy()
    return result


def greedy(model: Any) -> Text:
    """The prompt continued by eight tokens, and the logits of all."""
    import torch

    ids = model.generate(torch.tensor([PROMPT]), max_new_tokens=8, do_sample=False)[0].tolist()
    assert len(ids) == len(PROMPT) + 8
    return Text(ids, logits(model, ids))


def gguf_weights(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Canonical name and f32 weights of every tensor of a GGUF file, as gguf-py decodes them; norms without their 1."""
    import torch
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    for stored, (kind, shape, data) in read_gguf(path)[1].items():
        name = from_gguf(stored)
        assert name is not None
        f32 = kind == GGMLQuantizationType.F32
        raw = np.frombuffer(data, np.float32 if f32 else np.uint8).reshape(shape[-1], -1)
        weights = np.array(dequantize(raw, GGMLQuantizationType(kind))).reshape(shape[::-1])
        yield name, torch.from_numpy(weights) - float(place(name).role == Role.NORM)


def put(model: Any, path: Path) -> None:
    """Replace the weights of a dense model by those of a GGUF file."""
    import torch

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weights in gguf_weights(path):
            parameters.pop(name).copy_(weights)
    assert not parameters


def mlx_model(folder: Path) -> Any:
    """An MLX folder in mlx-lm, on the CPU, its scales, biases and norms cast to f32."""
    import mlx.core as mx
    from mlx.utils import tree_map
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    model, _ = load_model(folder)
    model.update(
        tree_map(lambda a: a.astype(mx.float32) if mx.issubdtype(a.dtype, mx.floating) else a, model.parameters())
    )
    return model


def arrays(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Name -> dtype, shape and bytes of every array of a safetensors file."""
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    header.pop("__metadata__", None)
    return {
        name: (entry["dtype"], tuple(entry["shape"]), data[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }


def mlx_logits(folder: Path, ids: list[int]) -> np.ndarray:
    """F32 [tokens, vocabulary]."""
    import mlx.core as mx

    return np.array(mlx_model(folder)(mx.array([ids])))[0]


def vllm(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What vLLM answers to jobs; `vllm_run.py` describes both."""
    command = [str(vllm_python()), "-P", str(Path(__file__).with_name("vllm_run.py"))]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def mlx_vlm(jobs: list[dict[str, Any]]) -> None:
    """Have mlx-vlm do jobs; `mlx_vlm_run.py` describes them."""
    command = [sys.executable, str(Path(__file__).with_name("mlx_vlm_run.py"))]
    done = subprocess.run(command, input=json.dumps(jobs, default=str), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
