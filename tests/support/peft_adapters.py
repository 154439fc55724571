"""Adapters that PEFT itself makes on a tiny Gemma 3, and what its `merge_and_unload` makes of them in float32."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from synthetic import TINY, write_checkpoint

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]


def base(folder: Path, **changes: Any) -> Path:
    """A tiny Gemma 3 in BF16; `changes` are keys of its config.json."""
    if not folder.exists():
        write_checkpoint(folder, TINY)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def make(model: Any, folder: Path, config: Any, *, before: Callable[[Any], None] | None = None, **saving: Any) -> Path:
    """Save an adapter of PEFT with random weights, none of which is zero.

    Args:
        model: The model in transformers, which is changed.
        folder: Folder to write.
        config: PEFT's config.
        before: Called with the PEFT model before it is saved.
        saving: Further arguments of `save_pretrained`.
    """
    import peft
    import torch

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = peft.get_peft_model(model, config)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if parameter.requires_grad:
                    factor = 1 + 0.2 * torch.rand_like(parameter)
                    fresh = torch.randn_like(parameter) * 0.05
                    parameter.copy_(parameter * factor if "magnitude" in name else fresh)
        if before is not None:
            before(made)
        made.save_pretrained(folder, **saving)
    return folder


def load(folder: Path, **keywords: Any) -> Any:
    """A model in transformers, f32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **keywords)


def merged(base: Path, adapter: Path, *, resize: int | None = None, **keywords: Any) -> dict[str, np.ndarray]:
    """Every weight after PEFT's `merge_and_unload` in float32, by name in the folder of a text model."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load(base, **keywords)
        if resize is not None:
            model.resize_token_embeddings(resize)
        done = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return {name: value.detach().numpy().copy() for name, value in done.state_dict().items()}


@cache
def installed() -> bool:
    """Whether PEFT can be imported."""
    try:
        import peft  # noqa: F401
    except ImportError:
        return False
    return True
