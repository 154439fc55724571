"""MLX folders of a multimodal model: mlx-lm and mlx-vlm compute what the GGUF files of the same run say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import runtimes
import seeing
from gemmaq.models.gemma3 import towers
from inprocess import run
from runtimes import Require, need

IDS = [2, 9259, 236764, 1217, 563, 236743, *range(5000, 5080, 3), 107]


@pytest.fixture
def int4_model(int4: Path, dense: Any) -> Iterator[Any]:
    """The multimodal model in transformers, f32, with the text weights of the int4 GGUF."""
    with seeing.lent_text(dense, seeing.text(int4 / "gguf")):
        yield dense


def same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """The largest difference is small against the spread of all; every position has the same token at the top."""
    assert ours.shape == theirs.shape
    assert float(np.abs(ours - theirs).max() / np.ptp(theirs)) < 5e-5
    assert ours.argmax(-1).tolist() == theirs.argmax(-1).tolist()


LOGITS = """
import sys
from pathlib import Path
import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_vlm.utils import load_model

folder, given, out = sys.argv[1:]
mx.set_default_device(mx.cpu)
model = load_model(Path(folder))
model = model[0] if isinstance(model, tuple) else model
wide = lambda a: a.astype(mx.float32) if mx.issubdtype(a.dtype, mx.floating) else a
model.update(tree_map(wide, model.parameters()))
given = np.load(given)
text = model.language_model(mx.array(given["text"])).logits
ids = mx.array(given["ids"])
seen = model.get_input_embeddings(ids, mx.array(given["pixels"]), mx.ones(ids.shape))
np.savez(out, text=text, image=model.language_model(ids, inputs_embeds=seen.inputs_embeds).logits)
"""
"""All in float32, on the CPU."""

ANSWERS = """
import json, sys
import mlx.core as mx
from mlx_vlm import generate, load

folder, picture, out = sys.argv[1:]
mx.set_default_device(mx.cpu)
model, processor = load(folder)
answers = []
for images in ([picture], None):
    answer = generate(model, processor, "<start_of_image>What is it?", image=images, max_tokens=4, temperature=0.0)
    answers.append((answer.prompt_tokens, answer.text))
json.dump(answers, open(out, "w"))
"""


def mlx_vlm(script: str, *arguments: Path) -> Path:
    """Run a script in a process of its own, as mlx-vlm puts classes in place of those of transformers; its output."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return arguments[-1]


@pytest.mark.oracle
def test_mlx_lm_computes_what_the_gguf_says(require: Require, int4: Path, int4_model: Any) -> None:
    need(require, "mlx_lm")
    same(runtimes.mlx_logits(int4 / "mlx", IDS), seeing.logits(int4_model, IDS))


@pytest.mark.slow
@pytest.mark.oracle
def test_mlx_vlm_computes_what_the_gguf_says_of_text_and_of_an_image(
    require: Require, int4: Path, int4_model: Any, processor: Any, tmp_path: Path
) -> None:
    """With a mask that looks back only, as mlx-vlm has no other for an image; transformers is told the same."""
    need(require, "mlx_vlm")
    import torch

    inputs = processor(text="Look at <start_of_image> and say", images=[seeing.picture(1)], return_tensors="pt")
    given, out = tmp_path / "given.npz", tmp_path / "logits.npz"
    np.savez(given, text=np.array([IDS]), ids=inputs["input_ids"].numpy(), pixels=inputs["pixel_values"].numpy())
    found = np.load(mlx_vlm(LOGITS, int4 / "mlx", given, out))
    same(found["text"][0], seeing.logits(int4_model, IDS))
    back_only = {"token_type_ids": torch.zeros_like(inputs["input_ids"])}
    same(found["image"][0], seeing.logits(int4_model, inputs | back_only))


@pytest.mark.slow
@pytest.mark.oracle
def test_mlx_vlm_answers_a_prompt_with_an_image(require: Require, int4: Path, tmp_path: Path) -> None:
    """The whole way: the processor it finds in the folder, and its own generation."""
    need(require, "mlx_vlm")
    seeing.picture(1).save(tmp_path / "picture.png")
    answers = mlx_vlm(ANSWERS, int4 / "mlx", tmp_path / "picture.png", tmp_path / "answers.json")
    (seen, told), (unseen, blind) = json.loads(answers.read_text())
    assert seen > seeing.TOKENS > unseen and told != blind


def test_the_head_repeats_the_codes_of_the_embedding(int4: Path, eye: Path) -> None:
    arrays = load_file(int4 / "mlx/model.safetensors")
    for suffix in ("weight", "scales", "biases"):
        head, embedding = (
            arrays.pop(f"language_model.{module}.{suffix}") for module in ("lm_head", "model.embed_tokens")
        )
        assert head.dtype == embedding.dtype and head.equal(embedding)
    config = json.loads((int4 / "mlx/config.json").read_text())
    eight = {"group_size": 32, "bits": 8, "mode": "affine"}
    usual = {**eight, "bits": 4}
    wide = {f"language_model.{module}": eight for module in ("lm_head", "model.embed_tokens")}
    assert config["quantization"] == config["quantization_config"] == {**usual, **wide}
    assert config["model_type"] == "gemma3" and config["hidden_size"] == 64
    for name in ("vision_config", "image_token_index", "boi_token_index", "eoi_token_index", "mm_tokens_per_image"):
        assert config[name], name
    source = load_file(eye / "model.safetensors")
    for name, shape in towers.shapes(towers.from_hf(json.loads((eye / "config.json").read_text()), {}), 64):
        ours, theirs = arrays.pop(name), source[name]
        assert tuple(theirs.shape) == shape and ours.dtype == theirs.dtype
        if ours.ndim == 4:
            assert tuple(ours.shape) == (64, 14, 14, 3)
            ours = ours.permute(0, 3, 1, 2)
        assert ours.equal(theirs), name
    assert all(name.startswith("language_model.model.") for name in arrays)


@pytest.mark.oracle
def test_text_only_on_request(require: Require, eye: Path, int4: Path, int4_model: Any, tmp_path: Path) -> None:
    need(require, "mlx_lm")
    done = run("convert", eye, "--to", "mlx", "--quant", "q4_0", "--mmproj", "none", "-o", tmp_path / "out")
    assert "are left out, the result is text-only" in done.stderr
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["model_type"] == "gemma3_text" and config["architectures"] == ["Gemma3ForCausalLM"]
    assert not [name for name in config if "vision" in name or "image" in name or name.startswith("mm_")]
    assert not list((tmp_path / "out").glob("*processor_config.json"))
    ours, both = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", int4 / "mlx"))
    assert {name: array for name, array in ours.items() if not array.equal(both[f"language_model.{name}"])} == {}
    assert len(ours) == len([name for name in both if name.startswith("language_model.model.")])
    same(runtimes.mlx_logits(tmp_path / "out", IDS), seeing.logits(int4_model, IDS))


def test_a_model_of_long_context_has_a_card(eye: Path, tmp_path: Path) -> None:
    """As all published ones have; the card lists memory for the contexts that a model takes."""
    source = tmp_path / "gemma-3-eye"
    source.mkdir()
    for path in eye.iterdir():
        (source / path.name).hardlink_to(path)
    config = json.loads((source / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 131072
    (source / "config.json").unlink()
    (source / "config.json").write_text(json.dumps(config))
    run("convert", source, "--to", "gguf", "--to", "mlx", "-o", tmp_path / "out")
