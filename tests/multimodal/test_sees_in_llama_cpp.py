"""Text and mmproj in real llama.cpp: what comes after an image and a prompt is what transformers says."""

from __future__ import annotations

import base64
import io
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llama_server
import seeing
from inprocess import run
from llama_server import Request, ask
from runtimes import Require, need

pytestmark = pytest.mark.oracle

PROMPTS = (
    "<start_of_image>What is this?",
    "Look at that: <start_of_image>The colour of the" + " very" * 70 + " big one is",
)
"""The second is longer than the sliding window."""
PICTURES = (0, 2, 3)
LISTED = 5_000
"""Tokens whose probabilities are compared; all 262,208 would take 30 MB of JSON."""


def encoded(picture: Any) -> str:
    """A picture as base64 of a PNG."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def completion(prompt: str, *pictures: Any) -> Request:
    """A request for the token after a prompt, which has llama.cpp's marker where transformers' processor has an image:
    the two blank lines that the processor puts around it are no work of llama.cpp's.
    """
    marked = prompt.replace("<start_of_image>", "\n\n<__media__>\n\n")
    given = {"prompt_string": marked, "multimodal_data": [encoded(picture) for picture in pictures]}
    return "/completion", {
        "prompt": given,
        "n_predict": 1,
        "temperature": 0,
        "n_probs": LISTED,
        "cache_prompt": False,
    }


def job(artifact: Path, *requests: Request) -> dict[str, Any]:
    return llama_server.job(seeing.text(artifact), *requests, **{"mmproj.path": str(seeing.projector(artifact))})


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """In f64."""
    shifted = logits.astype(np.float64) - logits.max()
    result: np.ndarray = shifted - math.log(np.exp(shifted).sum())
    return result


def divergence(exact: np.ndarray, answer: dict[str, Any]) -> tuple[float, bool]:
    """KL of llama.cpp's distribution from that of transformers, and whether both have the same token at the top.

    Among the tokens listed, which are nearly all that can come: llama.cpp adds the others up in f32, to 1e-4 or so.
    """
    listed = answer["completion_probabilities"][0]["top_logprobs"]
    ids = np.array([entry["id"] for entry in listed])
    assert len(set(ids.tolist())) == LISTED
    logprobs = np.array([entry["logprob"] for entry in listed], np.float64)
    p, q = np.exp(exact[ids]), np.exp(logprobs)
    assert p.sum() > 0.98 and q.sum() > 0.98
    kl = float((p / p.sum() * (exact[ids] - math.log(p.sum()) - logprobs + math.log(q.sum()))).sum())
    return kl, int(exact.argmax()) == int(ids[0])


@pytest.mark.slow
@pytest.mark.parametrize(("model", "kind"), [("eye", "f16"), ("eye", "bf16"), ("near", "f32")])
def test_the_token_after_an_image_is_that_of_transformers(
    require: Require, request: pytest.FixtureRequest, tmp_path: Path, model: str, kind: str
) -> None:
    need(require, "xllamacpp")
    from transformers import AutoProcessor

    folder: Path = request.getfixturevalue(model)
    run("convert", folder, "--quant", kind, "--mmproj", kind, "-o", tmp_path / "out")
    exact = request.getfixturevalue("dense") if model == "eye" else seeing.load(folder)
    size = exact.config.vision_config.image_size
    cases = [(prompt, seeing.picture(seed, size)) for prompt in PROMPTS for seed in PICTURES]
    answers = ask(job(tmp_path / "out", *(completion(*case) for case in cases)))
    processor = AutoProcessor.from_pretrained(folder)
    expected, found = [], []
    for (prompt, picture), answer in zip(cases, answers, strict=True):
        inputs = processor(text=prompt, images=[picture], return_tensors="pt")
        assert answer["tokens_evaluated"] == inputs["input_ids"].shape[1]
        assert int((inputs["input_ids"] == seeing.IMAGE_TOKEN).sum()) == seeing.TOKENS
        expected.append(log_softmax(seeing.logits(exact, inputs)[-1]))
        found.append(divergence(expected[-1], answer))
    others = [float((np.exp(p) * (p - q)).sum()) for p, q in pairwise(expected)]
    mean = sum(kl for kl, _ in found) / len(found)
    print(f"{model} {kind}: mean KL {mean:.1e}, worst {max(found)[0]:.1e}, to the next image {min(others):.2f} or more")
    assert all(same for _, same in found)
    assert mean <= 1e-3
    assert min(others) > 20e-3


def test_an_image_in_a_chat(require: Require, eye: Path, dense: Any, processor: Any, tmp_path: Path) -> None:
    """As any client sends it, with the chat template of the file; llama.cpp puts nothing around the image."""
    need(require, "xllamacpp")
    import torch

    run("convert", eye, "--quant", "f16", "-o", tmp_path / "out")
    picture = seeing.picture(5)
    url = {"url": f"data:image/png;base64,{encoded(picture)}"}
    content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": "What is this?"}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1, "temperature": 0}
    body |= {"logprobs": True, "top_logprobs": 20}
    (answer,) = ask(job(tmp_path / "out", ("/v1/chat/completions", body)))
    image = "<start_of_image>" + seeing.TOKENS * "<image_soft_token>" + "<end_of_image>"
    turn = f"<start_of_turn>user\n{image}What is this?<end_of_turn>\n<start_of_turn>model\n"
    ids = processor.tokenizer(turn, return_tensors="pt")["input_ids"]
    assert ids[0, 0] == 2 and answer["usage"]["prompt_tokens"] == ids.shape[1]
    pixels = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    kinds = (ids == seeing.IMAGE_TOKEN).long()
    inputs = {"input_ids": ids, "pixel_values": pixels, "token_type_ids": kinds}
    logprobs = torch.from_numpy(seeing.logits(dense, inputs)[-1]).log_softmax(-1)
    (first,) = answer["choices"][0]["logprobs"]["content"]
    assert first["id"] == int(logprobs.argmax())
    assert max(abs(entry["logprob"] - float(logprobs[entry["id"]])) for entry in first["top_logprobs"]) < 0.05
