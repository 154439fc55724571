"""vLLM is asked for the likeliest tokens, in BF16 as it is; the runtime itself is a stand-in with its interface."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from gemmaq.verify.engines import Engine, Installed, process

VLLM = """
__version__ = "0.99"
from types import SimpleNamespace as Made


class SamplingParams:
    def __init__(self, temperature, max_tokens, ignore_eos, logprobs):
        assert temperature == 0 and ignore_eos and logprobs == 1
        self.count = max_tokens


class LLM:
    def __init__(self, folder, max_model_len, max_num_seqs, enforce_eager):
        assert folder == "folder" and max_model_len == 64

    def get_tokenizer(self):
        return Made(encode=lambda text, add_special_tokens: [len(text), int(add_special_tokens)])

    def generate(self, prompts, params, use_tqdm):
        print("loading")
        last = prompts[0]["prompt_token_ids"][-1]
        tokens = [last + n + 1 for n in range(params.count)]
        scores = [{token: Made(logprob=-0.5 * n), 0: Made(logprob=-9.0)} for n, token in enumerate(tokens)]
        return [Made(outputs=[Made(token_ids=tokens, logprobs=scores)])]
"""


def test_what_it_is_asked_and_how_its_answer_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vllm.py").write_text(VLLM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    runtime = Installed(Engine("vllm", (), "ask_vllm.py"), Path(sys.executable))
    job: dict[str, Any] = {"model": "folder", "ids": [2, 7], "text": "<bos>a", "tokens": 3, "context": 64, "threads": 1}
    answer = process.ask(runtime, job, timeout=60)
    assert answer == process.Answer("0.99", (6, 0), (8, 9, 10), (0.0, -0.5, -1.0))
