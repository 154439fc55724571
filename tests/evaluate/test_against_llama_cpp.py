"""The real 270M: perplexity is that of real llama.cpp on the same tokens."""

from __future__ import annotations

import json
import math
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest

from oracles import Llama, load_llama, need, need_ggml

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

CONTEXT, CHUNKS = 256, 2
NAMES = ("with", "assert", "numeric-types", "typesmapping", "exceptions", "operator-summary")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text("\n".join(topics[name] for name in NAMES if name in topics))
    return path


def surprises(llama: Llama, chunk: list[int]) -> list[float]:
    """-log p of the tokens in the second half of a chunk."""
    found, at = [], CONTEXT // 2
    for rows in llama.logits(chunk, first=at):
        for logits in rows[: CONTEXT - 1 - at]:
            wide = logits.astype(np.float64)
            top = wide.max()
            at += 1
            found.append(top + math.log(np.exp(wide - top).sum()) - wide[chunk[at]])
    return found


def perplexity(path: Path, text: str) -> tuple[float, float]:
    """What llama-perplexity says of the first chunks of a text, with its standard error."""
    with load_llama(path) as llama:
        ids = [2, *llama.tokenize(text, special=False)]
        cut = [[2, *ids[at * CONTEXT + 1 : (at + 1) * CONTEXT]] for at in range(CHUNKS)]
        each = np.array([value for chunk in cut for value in surprises(llama, chunk)])
    assert len(each) == CHUNKS * (CONTEXT // 2 - 1)
    deviation = math.sqrt(((each**2).mean() - each.mean() ** 2) / (len(each) - 1))
    return math.exp(each.mean()), math.exp(each.mean()) * deviation


def test_perplexity_is_that_of_llama_cpp(require, gemmaq, sample_bf16, sample_q4_0, text, tmp_path):
    need_ggml(require)
    need(require, "torch", "transformers")
    gemmaq("convert", sample_bf16, "--quant", "bf16", "-o", tmp_path / "bf16")
    exact = tmp_path / "bf16/gemma-3-270m-BF16.gguf"
    # The tokens of exactly so many chunks, so that none is left out
    scored = CHUNKS * (CONTEXT // 2 - 1)
    cut = tmp_path / "cut.txt"
    with load_llama(exact, vocab_only=True) as llama:
        cut.write_text(_first(llama, text.read_text()))
    done = gemmaq(
        "evaluate", exact, sample_q4_0, "--reference", sample_bf16, "--text", cut, "--context", CONTEXT,
        "--json", env={"GEMMAQ_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["tokens"] == scored
    assert found["models"][0]["kl"]["mean"] == 0
    assert found["models"][0]["perplexity"] == found["reference"]["perplexity"]
    assert 0.1 < found["models"][1]["kl"]["mean"] < 1
    for path, ours in zip((exact, sample_q4_0), found["models"], strict=True):
        theirs, deviation = perplexity(path, cut.read_text())
        apart = ours["perplexity"] / theirs - 1
        print(f"{path.name}: {ours['perplexity']:.4f}, llama.cpp {theirs:.4f}, {apart:+.3%}")
        assert abs(apart) < 0.01
        assert ours["perplexity_stderr"] == pytest.approx(deviation, rel=0.05)


def _first(llama: Llama, text: str) -> str:
    """As much of a text as makes all the chunks and not one more."""
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        if len(llama.tokenize(text[:middle], special=False)) < CHUNKS * CONTEXT + 100:
            low = middle
        else:
            high = middle
    return text[:low]
