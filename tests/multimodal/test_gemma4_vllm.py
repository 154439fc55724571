"""vLLM loads int4 folders of Gemma 4 with towers: it reads text, sees and hears as transformers does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gemma4_inputs
import gemma4_towers
import gemma4_transformers
from inprocess import run
from oracles import need_vllm
from runtimes import Require, need, vllm

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

KINDS = ("effective", "experts", "unified")
SENSES = [*((kind, "seen") for kind in KINDS), ("unified", "heard")]
"""What vLLM can do on a CPU: its kernel for matrices does not take what its audio tower gives it there."""
PROMPT = [2, *(100 + 7 * i * i % 199 for i in range(39))]
SPELLED = {
    "pixel_values": "pixel_values", "image_position_ids": "pixel_position_ids",
    "input_features": "input_features_padded", "input_features_mask": "input_features_mask",
}  # fmt: skip
"""Inputs of the towers: their names in transformers and in vLLM."""


@pytest.fixture(scope="module")
def folders(gemma4_releases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind -> a folder in int4."""
    root = tmp_path_factory.mktemp("int4")
    for kind in KINDS:
        options = ("--to", "safetensors", "--quant", "q4_0", "--portable")
        run("convert", gemma4_releases[kind], *options, "-o", root / kind)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="module")
def ran(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, require: Require) -> Path:
    """What vLLM made of all folders in one process: files named by kind and sense.

    Embeddings of an image or a sound, and log-probabilities of the tokens of a text.
    """
    need_vllm(require)
    need(require, "torch", "transformers")
    work, jobs = tmp_path_factory.mktemp("vllm"), []
    for kind, folder in folders.items():
        media = {}
        for _, sense in (pair for pair in SENSES if pair[0] == kind):
            given = gemma4_inputs.seen(kind) if sense == "seen" else gemma4_inputs.heard(kind, folder)
            path = work / f"{kind}-{sense}.npz"
            np.savez(
                path, allow_pickle=False, **{theirs: given[ours] for ours, theirs in SPELLED.items() if ours in given}
            )
            media[str(path)] = str(path.with_suffix(".npy"))
        jobs.append({"folder": str(folder), "ids": PROMPT, "count": 1, "media": media})
    for kind, answer in zip(folders, vllm(jobs), strict=True):
        np.save(work / f"{kind}-text.npy", answer["logprobs"][:-1])
    return work


@pytest.mark.parametrize(("kind", "sense"), SENSES)
def test_vllm_sees_and_hears_what_transformers_does(
    gemma4_releases: dict[str, Path], ran: Path, kind: str, sense: str
) -> None:
    """In BF16, the other in F32."""
    model = gemma4_transformers.load(gemma4_releases[kind])
    if sense == "seen":
        expected = gemma4_transformers.see(model, gemma4_towers.picture())
    else:
        frames = gemma4_transformers.features(gemma4_releases[kind], gemma4_towers.sound())
        expected = gemma4_transformers.hear(model, frames)
    found = np.load(ran / f"{kind}-{sense}.npy")
    assert found.shape == expected.shape and np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9995


@pytest.mark.parametrize("kind", KINDS)
def test_vllm_reads_text_with_the_int4_weights(
    gemma4_releases: dict[str, Path], folders: dict[str, Path], ran: Path, tmp_path: Path, kind: str
) -> None:
    """Much nearer to them than they are to the weights that were quantized."""
    run("convert", folders[kind], "--to", "safetensors", "--quant", "f32", "-o", tmp_path / "f32")
    found = np.load(ran / f"{kind}-text.npy")
    expected, before = (logprobs(folder) for folder in (tmp_path / "f32", gemma4_releases[kind]))
    assert distance(found, expected) < 0.4 * distance(before, expected)


def logprobs(folder: Path) -> np.ndarray:
    """F32 [tokens - 1]: of the prompt's tokens, in transformers."""
    import torch

    given = gemma4_transformers.logits(gemma4_transformers.load(folder), {"input_ids": np.array([PROMPT])})
    found: np.ndarray = torch.from_numpy(given[:-1]).log_softmax(-1).numpy()[np.arange(len(PROMPT) - 1), PROMPT[1:]]
    return found


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The root of the mean square of the differences."""
    return float(np.sqrt(np.square(first - second).mean()))
