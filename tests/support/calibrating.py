"""Helpers for tests of calibration: small models, plans for them, and the inputs that transformers computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from damage import SMALL
from gemmaq.calibration.store import Problem
from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.rows import read_rows, values_of, weights
from gemmaq.convert.layout import make_plans
from gemmaq.files.span import Reader
from gemmaq.inference import device as forward
from gemmaq.inference.decoder import Decoder, decoder
from gemmaq.methods import Needs
from gemmaq.planning.plan import Plan
from gemmaq.planning.recipe import of
from gemmaq.planning.request import Request

CONTEXT = 80
MATRICES = 7 * SMALL.num_hidden_layers


@contextmanager
def opened(checkpoint: Checkpoint, threads: int = 2) -> Iterator[Decoder]:
    with forward.open_device("cpu", threads) as device, decoder(checkpoint, device) as net:
        yield net


def naive_inputs(
    model: Path, tokens: np.ndarray, changed: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Matrix -> what it is multiplied with in transformers, f64 [tokens, columns]; some weights others than stored."""
    import torch
    from transformers import Gemma3ForCausalLM

    loaded, found = Gemma3ForCausalLM.from_pretrained(model, dtype=torch.float32).eval(), dict[str, Any]()
    for name, values in (changed or {}).items():
        loaded.get_parameter(name).data.copy_(torch.from_numpy(values))
    for name, module in loaded.model.layers.named_modules(prefix="model.layers"):
        if isinstance(module, torch.nn.Linear):
            key = f"{name}.weight"
            module.register_forward_pre_hook(
                lambda _, x, key=key: found.__setitem__(key, x[0].reshape(-1, x[0].shape[-1]))
            )
    with torch.no_grad():
        loaded(input_ids=torch.from_numpy(tokens))
    return {name: values.double().numpy() for name, values in found.items()}


def planned(
    checkpoint: Checkpoint, method: str = "gptq", quant: str = "q4_0", to: str = "gguf", rules: Any = ()
) -> list[Plan]:
    return make_plans(checkpoint, Request(of(quant, embedding=None, method=method, rules=rules), (to,)), {})


def problems_of(plan: Plan) -> list[Problem]:
    """What method gptq has to solve for a plan."""
    return [Problem.of(tensor) for tensor in plan.tensors if tensor.needs is Needs.HESSIAN]


def read_back(tensor) -> Any:
    with Reader() as reader:
        return values_of(tensor, read_rows(tensor, 0, tensor.rows, reader, bytearray()))


def dense(checkpoint: Checkpoint, name: str) -> np.ndarray:
    tensor = checkpoint.tensors[name]
    with Reader() as reader:
        return weights(tensor, 0, tensor.rows, reader)


def as_f32(hessian: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(hessian.astype(np.float32))
