"""What mlx-vlm makes of folders: `python mlx_vlm_run.py < jobs`, a process of its own as it replaces classes.

Jobs are a JSON list of two kinds:

{"folder", "given", "out"}: logits of a prompt, f32 [tokens, vocabulary], go to `out` (.npy). `given` (.npz) has
    the inputs. All is computed in f32, by every token from those before it.
{"folder", "prompt", "out"} with or without "image" or "audio": the number of tokens of the prompt and the text that
    follows it go to the file `out`, a JSON list.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_vlm import generate, load
from mlx_vlm.utils import load_model


def compute(folder: str, given: str, out: str) -> None:
    """The logits of a prompt."""
    model = load_model(Path(folder))
    model.update(tree_map(_wide, model.parameters()))
    inputs = {name: mx.array(array) for name, array in np.load(given).items()}
    inputs.pop("mm_token_type_ids")
    made = model.get_input_embeddings(inputs.pop("input_ids"), **inputs)
    found = model.language_model(None, inputs_embeds=made.inputs_embeds, per_layer_inputs=made.per_layer_inputs)
    np.save(out, np.array(found.logits[0]))


def _wide(array: Any) -> Any:
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def answer(folder: str, prompt: str, out: str, **media: str) -> None:
    """The answer to a prompt, with the processor and the weights as they are in the folder."""
    model, processor = load(folder)
    lists = {name: [path] for name, path in media.items()}
    found = generate(model, processor, prompt, max_tokens=4, temperature=0.0, **lists)
    Path(out).write_text(json.dumps([found.prompt_tokens, found.text]))


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    for job in json.load(sys.stdin):
        (compute if "given" in job else answer)(**job)
