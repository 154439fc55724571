"""Have mlx-lm decode: `python ask_mlx.py < job`, in a process of its own; `process` has the forms."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any


def decode(job: dict[str, Any]) -> dict[str, Any]:
    """The tokens that mlx-lm finds the likeliest, one after the other, in f32."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load

    model, tokenizer = load(job["model"])[:2]
    model.set_dtype(mx.float32)  # codes stay as they are
    tokens, logprobs = [], []
    for token, scores in generate_step(mx.array(job["ids"]), model, max_tokens=job["tokens"]):
        tokens.append(int(token))
        logprobs.append(float(scores[int(token)].astype(mx.float32)))
    return {
        "version": version("mlx-lm"),
        "prompt": list(tokenizer.encode(job["text"], add_special_tokens=False)),
        "tokens": tokens,
        "logprobs": logprobs,
    }


def main() -> None:
    """Do the job on stdin; its answer is the last line of stdout."""
    print("\n" + json.dumps(decode(json.load(sys.stdin))), flush=True)


if __name__ == "__main__":
    main()
