"""A drafter beside its target in real llama.cpp: it proposes what its weights say, and the text stays the target's.

The target repeats the last token for ever: nothing in its layers adds to the embedding, which is its head, too. The
drafter is made to see that from its input alone, through both projections and its own embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gemma4
import gemma4_drafter
import gemma4_tokenizer
import llama_server
from gemma4_drafter import DRAFTERS
from gemmaq.files.names import parts
from gemmaq.models.gemma4 import names
from gemmaq.models.gemma4_drafter.names import EMBEDDING, POST, PRE
from inprocess import run
from runtimes import Require, need

pytestmark = pytest.mark.oracle

PROMPT = [2, *range(300, 320)]
SILENT = ("self_attn.o_proj", "mlp.down_proj")
"""Parts that add to the residual stream."""


def silent(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A model in which only embedding and final norm count, and the norm has no weight."""
    made = dict(weights)
    for name, values in weights.items():
        if names.place(name).part in SILENT:
            made[name] = 0 * values
        elif name == names.FINAL_NORM:
            made[name] = np.ones_like(values)
    return made


def repeating() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A target that repeats, and a drafter that knows, f32 by canonical name.

    The first half of the drafter's input is the embedding of the last token, 16 times as long as in the table, the
    second the target's last state, whose direction is the same and whose length is 16. The drafter takes their
    difference: with the halves exchanged, or with another length of the first, it would propose the least likely token.
    """
    random = np.random.default_rng(5)
    target = silent(dict(gemma4.weights(gemma4.DENSE)))
    table = random.standard_normal((512, 256), np.float32)
    target[EMBEDDING] = table / np.linalg.norm(table, axis=1, keepdims=True) * np.float32(0.5)
    to_drafter = np.linalg.qr(random.standard_normal((512, 256)))[0].astype(np.float32)  # columns are orthonormal
    drafter = silent(dict(gemma4_drafter.weights(DRAFTERS["dense"].config)))
    drafter[EMBEDDING] = target[EMBEDDING] @ to_drafter.T
    drafter[PRE] = np.concatenate([-to_drafter, to_drafter], 1)
    drafter[POST] = to_drafter.T / np.float32(512**0.5 / 16)
    return target, drafter


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The two as Hugging Face folders."""
    root = tmp_path_factory.mktemp("drafts")
    target, drafter = repeating()
    written = gemma4.write(root / "gemma-4-repeats-it", gemma4.DENSE, target)
    return (
        gemma4_tokenizer.write(written),
        gemma4_drafter.write(root / "gemma-4-repeats-it-assistant", DRAFTERS["dense"], drafter),
    )


def job(folder: Path, **more: Any) -> dict[str, Any]:
    """A request for 24 tokens to the model of a folder, with its drafter if it has one."""
    files = parts(path.name for path in folder.glob("*.gguf"))
    settings: dict[str, Any] = {"n_ctx": 256, **more}
    if files.drafter is not None:
        settings |= {
            "speculative.types": ["COMMON_SPECULATIVE_TYPE_DRAFT_MTP"],
            "speculative.draft.mparams.path": str(folder / files.drafter),
            "speculative.draft.n_max": 3,
        }
    body = {"prompt": PROMPT, "n_predict": 24, "temperature": 0, "ignore_eos": True, "return_tokens": True}
    return llama_server.job(folder / files.model[0], ("/completion", body), **settings)


@pytest.mark.parametrize("quant", ["bf16", "q4_0"])
def test_llama_cpp_accepts_what_the_drafter_proposes(
    require: Require, folders: tuple[Path, Path], tmp_path: Path, quant: str
) -> None:
    need(require, "xllamacpp")
    target, drafter = folders
    run("convert", target, "--quant", quant, "-q", "-o", tmp_path / "alone")
    run("convert", target, "--draft", drafter, "--quant", quant, "-q", "-o", tmp_path / "both")
    alone, both = llama_server.ask(job(tmp_path / "alone"), job(tmp_path / "both"))
    assert alone["tokens"] == both["tokens"] == [PROMPT[-1]] * 24
    timings = both["timings"]
    assert timings["draft_n"] > 12 and timings["draft_n_accepted"] == timings["draft_n"], timings


@pytest.mark.parametrize("kind", gemma4.KINDS)
def test_every_kind_of_drafter_runs_beside_its_target(require: Require, tmp_path: Path, kind: str) -> None:
    """What they propose is random, and the text is the target's. After some tokens of a random model two are alike."""
    need(require, "xllamacpp")
    target = gemma4_tokenizer.write(gemma4.write(tmp_path / f"gemma-4-{kind}", gemma4.KINDS[kind]))
    drafter = gemma4_drafter.write(tmp_path / f"gemma-4-{kind}-assistant", DRAFTERS[kind])
    run("convert", target, "--quant", "q8_0", "-q", "-o", tmp_path / "alone")
    run("convert", target, "--draft", drafter, "--quant", "q8_0", "-q", "-o", tmp_path / "both")
    alone, both = llama_server.ask(job(tmp_path / "alone"), job(tmp_path / "both"))
    assert alone["tokens"][:6] == both["tokens"][:6] and both["timings"]["draft_n"] > 0
