"""MLX folders of Gemma 4 with towers: mlx-vlm sees and hears with them, mlx-lm reads their text model."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import dequantized
import gemma4_inputs
import gemma4_towers
import gemma4_transformers
import runtimes
from conversions import conversions
from gemma4_inputs import Inputs
from gemma4_towers import HEARING, KINDS
from runtimes import Require, need

COMPUTED = [
    *((kind, "seen", "q4_0") for kind in KINDS), *((kind, "heard", "q4_0") for kind in HEARING),
    ("effective", "seen", "bf16"),
]  # fmt: skip
"""Kind, what the prompt has besides text, and type."""
ANSWERED = {"effective": "image", "unified": "audio"}
TEXT = [2, *gemma4_inputs.AFTER, *range(280, 300)]
Convert = Callable[..., Path]
Ran = Callable[..., Path]


@pytest.fixture(scope="module")
def converted(gemma4_releases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """The MLX folder of a kind for some options."""
    return conversions(gemma4_releases, tmp_path_factory.mktemp("made"), "--to", "mlx")


@pytest.fixture(scope="module")
def inputs(gemma4_releases: dict[str, Path]) -> Callable[[str, str], Inputs]:
    """A prompt for a kind, every token seeing only those before it.

    mlx-vlm lets the pieces of an image see each other in global layers too, transformers in those with a window only.
    """

    def make(kind: str, sense: str) -> Inputs:
        seen = sense == "seen"
        return gemma4_inputs.back_only(
            gemma4_inputs.seen(kind) if seen else gemma4_inputs.heard(kind, gemma4_releases[kind])
        )

    return make


@pytest.fixture(scope="module")
def ran(
    converted: Convert, inputs: Callable[[str, str], Inputs], tmp_path_factory: pytest.TempPathFactory, require: Require
) -> Path:
    """What mlx-vlm made of all prompts, in one process: files named by kind, sense and type."""
    need(require, "mlx_vlm", "torch", "transformers")
    from PIL import Image

    work, jobs = tmp_path_factory.mktemp("mlx-vlm"), []
    for kind, sense, quant in COMPUTED:
        given = work / f"{kind}-{sense}-{quant}.npz"
        np.savez(given, allow_pickle=False, **inputs(kind, sense))
        jobs.append({"folder": converted(kind, "--quant", quant), "given": given, "out": given.with_suffix(".npy")})
    Image.fromarray(gemma4_towers.picture()).save(work / "image.png")
    with wave.open(str(work / "audio.wav"), "wb") as file:
        file.setparams((1, 2, gemma4_towers.RATE, 0, "NONE", ""))
        file.writeframes((gemma4_towers.sound() * 32767).astype("<i2").tobytes())
    media = {"image": {"image": work / "image.png"}, "audio": {"audio": work / "audio.wav"}, "text": {}}
    for kind, sense in [*ANSWERED.items(), *((kind, "text") for kind in ANSWERED)]:
        prompt = ("" if sense == "text" else f"<|{sense}|>") + "What is it?"
        out = work / f"{kind}-{sense}.json"
        jobs.append({"folder": converted(kind, "--quant", "q4_0"), "prompt": prompt, "out": out, **media[sense]})
    runtimes.mlx_vlm(jobs)
    return work


@pytest.fixture(scope="module")
def dense(
    converted: Convert, gemma4_releases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Any]:
    """The source's model in transformers, f32, with the weights of the MLX folder as MLX dequantizes them."""
    root, made = tmp_path_factory.mktemp("dense"), {}

    def load(kind: str, quant: str) -> Any:
        if (kind, quant) not in made:
            target = root / f"{kind}-{quant}"
            dequantized.of_mlx(converted(kind, "--quant", quant), gemma4_releases[kind], target)
            made[kind, quant] = gemma4_transformers.load(target)
        return made[kind, quant]

    return load


def same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """The largest difference is small against the spread of all; every position has the same token at the top."""
    assert ours.shape == theirs.shape
    assert float(np.abs(ours - theirs).max() / np.ptp(theirs)) < 5e-5
    assert ours.argmax(-1).tolist() == theirs.argmax(-1).tolist()


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "sense", "quant"), COMPUTED)
def test_mlx_vlm_computes_what_transformers_does(
    ran: Path,
    dense: Callable[[str, str], Any],
    inputs: Callable[[str, str], Inputs],
    kind: str,
    sense: str,
    quant: str,
) -> None:
    found = np.load(ran / f"{kind}-{sense}-{quant}.npy")
    same(found, gemma4_transformers.logits(dense(kind, quant), inputs(kind, sense)))


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(("kind", "sense"), ANSWERED.items())
def test_mlx_vlm_answers_with_the_processor_of_the_folder(ran: Path, kind: str, sense: str) -> None:
    (given, told), (blank, blind) = (json.loads((ran / f"{kind}-{name}.json").read_text()) for name in (sense, "text"))
    assert told != blind
    assert 240 < given - blank < 290 if sense == "image" else 25 <= given - blank < 30


@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
def test_mlx_lm_reads_the_text_model(
    converted: Convert, dense: Callable[[str, str], Any], require: Require, kind: str
) -> None:
    need(require, "mlx_lm", "torch", "transformers")
    same(runtimes.mlx_logits(converted(kind, "--quant", "q4_0"), TEXT), runtimes.logits(dense(kind, "q4_0"), TEXT))


def inside(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays of the towers."""
    return {name: array for name, array in arrays.items() if "language_model." not in name}


@pytest.mark.parametrize("kind", KINDS)
def test_towers_are_those_of_the_release_with_channels_last(
    gemma4_releases: dict[str, Path], converted: Convert, kind: str
) -> None:
    """Though mlx-vlm's own converter would quantize one of their matrices."""
    source = inside(load_file(gemma4_releases[kind] / "model.safetensors"))
    folder = converted(kind, "--quant", "q4_0")
    ours = inside(load_file(folder / "model.safetensors"))
    assert {f"model.{name}" for name in ours} == source.keys()
    moved = [name for name in ours if "conv.weight" in name or "conv1d.weight" in name]
    assert len(moved) == (4 if kind == "effective" else 0)
    for name, weights in source.items():
        array = ours[name.removeprefix("model.")]
        assert array.dtype == weights.dtype and (array.movedim(-1, 1) if name[6:] in moved else array).equal(weights)
    quantization = json.loads((folder / "config.json").read_text())["quantization"]
    assert [name for name in quantization if name.startswith(tuple(n.partition(".")[0] for n in ours))] == []


@pytest.mark.parametrize("kind", KINDS)
def test_config_says_what_mlx_vlm_asks_for(gemma4_releases: dict[str, Path], converted: Convert, kind: str) -> None:
    folder, source = converted(kind, "--quant", "q4_0"), gemma4_releases[kind]
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (folder, source))
    assert ours["model_type"] == theirs["model_type"] and ours["vocab_size"] == ours["text_config"]["vocab_size"]
    assert ("audio_config" in ours) and (ours["audio_config"] is None) == (theirs["audio_config"] is None)
    for name in gemma4_towers.token_ids():
        assert ours[name] == theirs[name], name
    for name in ("processor_config.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (source / name).read_bytes(), name


@pytest.mark.oracle
def test_text_only_on_request(gemma4_releases: dict[str, Path], converted: Convert, require: Require) -> None:
    need(require, "mlx_lm")
    whole, text = (
        converted("effective", "--quant", "q4_0"),
        converted("effective", "--quant", "q4_0", "--mmproj", "none"),
    )
    config = json.loads((text / "config.json").read_text())
    assert not {"vision_config", "audio_config", "image_token_id"} & config.keys()
    assert not list(text.glob("*processor*"))
    ours, both = (load_file(folder / "model.safetensors") for folder in (text, whole))
    assert ours.keys() == both.keys() - inside(both).keys()
    assert [name for name, array in ours.items() if not array.equal(both[name])] == []
    np.testing.assert_array_equal(runtimes.mlx_logits(text, TEXT), runtimes.mlx_logits(whole, TEXT))
