"""Have vLLM decode: `python ask_vllm.py < job`, run by the Python that has vLLM; `process` has the forms."""

from __future__ import annotations

import json
import sys
from typing import Any


def decode(job: dict[str, Any]) -> dict[str, Any]:
    """The tokens that vLLM finds the likeliest, one after the other."""
    import vllm

    model = vllm.LLM(job["model"], max_model_len=job["context"], max_num_seqs=1, enforce_eager=True)
    greedy = vllm.SamplingParams(temperature=0, max_tokens=job["tokens"], ignore_eos=True, logprobs=1)
    (answer,) = model.generate([{"prompt_token_ids": job["ids"]}], greedy, use_tqdm=False)
    made = answer.outputs[0]
    tokens = list(made.token_ids)
    return {
        "version": vllm.__version__,
        "prompt": list(model.get_tokenizer().encode(job["text"], add_special_tokens=False)),
        "tokens": tokens,
        "logprobs": [scores[token].logprob for token, scores in zip(tokens, made.logprobs, strict=True)],
    }


def main() -> None:
    """Do the job on stdin; its answer is the last line of stdout."""
    print("\n" + json.dumps(decode(json.load(sys.stdin))), flush=True)


if __name__ == "__main__":
    main()
