"""Have transformers decode: `python ask_transformers.py < job`, in a process of its own; `process` has the forms."""

from __future__ import annotations

import json
import sys
from typing import Any


def decode(job: dict[str, Any]) -> dict[str, Any]:
    """The tokens that transformers finds the likeliest, one after the other, in f32."""
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"], local_files_only=True)
    config = transformers.AutoConfig.from_pretrained(job["model"], local_files_only=True)
    loader: Any = getattr(transformers, config.architectures[0])
    model = loader.from_pretrained(job["model"], local_files_only=True, dtype=torch.float32).to(device).eval()
    given, cache, tokens, logprobs = torch.tensor([job["ids"]], device=device), None, [], []
    with torch.no_grad():
        for _ in range(job["tokens"]):
            made = model(given, past_key_values=cache, use_cache=True)
            scores, cache = made.logits[0, -1].float().log_softmax(-1), made.past_key_values
            tokens.append(int(scores.argmax()))
            logprobs.append(float(scores[tokens[-1]]))
            given = torch.tensor([[tokens[-1]]], device=device)
    return {
        "version": transformers.__version__,
        "prompt": list(tokenizer.encode(job["text"], add_special_tokens=False)),
        "tokens": tokens,
        "logprobs": logprobs,
    }


def main() -> None:
    """Do the job on stdin; its answer is the last line of stdout."""
    print("\n" + json.dumps(decode(json.load(sys.stdin))), flush=True)


if __name__ == "__main__":
    main()
