"""mmproj files of Gemma 4: llama.cpp's converter writes the same, and its encoders compute what transformers does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import gemma4_towers
import gemma4_transformers
import mtmd
import seeing
from conversions import conversions
from gemma4_towers import HEARING, KINDS
from oracles import read_gguf
from reference import convert_gemma4, need_converter
from runtimes import Require, need

pytestmark = [pytest.mark.slow, pytest.mark.oracle]

SEEN = {"f32": 0.9999999, "f16": 0.9999995, "bf16": 0.99999, "q8_0": 0.999}
HEARD = {"f32": 0.99999, "f16": 0.99999, "bf16": 0.9999, "q8_0": 0.998}
"""Type of an mmproj file -> least correlation with transformers, where both compute the same formulas.

llama.cpp's convolutions round sound to F16.
"""
OURS_ALONE = {
    "general.license": "apache-2.0",
    "general.license.link": "https://www.apache.org/licenses/LICENSE-2.0",
    "clip.use_gelu": True,
}
"""A file that is passed on says what it is under, and the activation of its tower."""
THEIRS_ALONE = {f"general.sampling.{name}" for name in ("top_k", "top_p", "temp")}
"""Nothing is sampled from an encoder."""
OTHERWISE = {f"general.{name}" for name in ("name", "size_label", "basename", "finetune")}
"""Made of the folder's name and of the number of parameters, by other rules."""
FLOOR = 1e-3
"""Of the loudness in a band of frequency."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, require: Require) -> dict[str, Path]:
    """A Hugging Face folder of every kind."""
    need(require, "torch", "transformers", "xllamacpp")
    return gemma4_towers.folders(tmp_path_factory.mktemp("gemma4-towers"))


@pytest.fixture(scope="module")
def artifacts(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The artifact of a kind with an mmproj file of a type."""
    return conversions(folders, tmp_path_factory.mktemp("made"), "--quant", "bf16", "--mmproj")


@pytest.fixture(scope="module")
def references(require: Require, folders: dict[str, Path]) -> dict[tuple[str, str], Path]:
    """Kind and type -> the mmproj file by llama.cpp's converter."""
    need_converter(require)
    made = {(kind, quant): folder / f"mmproj-{quant}.gguf" for kind, folder in folders.items() for quant in SEEN}
    convert_gemma4((folders[kind], quant, path, "--mmproj") for (kind, quant), path in made.items())
    return made


@pytest.fixture(scope="module")
def encoded(artifacts: Callable[[str, str], Path]) -> Callable[[str, str], list[np.ndarray]]:
    """Embeddings of the picture and, of a kind that hears, of the sound by llama.cpp."""
    made: dict[tuple[str, str], list[np.ndarray]] = {}

    def encode(kind: str, quant: str) -> list[np.ndarray]:
        if (kind, quant) not in made:
            media = [gemma4_towers.picture(), *([gemma4_towers.sound()] if kind in HEARING else [])]
            out = artifacts(kind, quant)
            made[kind, quant] = mtmd.encode(seeing.text(out), seeing.projector(out), *media)
        return made[kind, quant]

    return encode


@pytest.fixture(scope="module")
def seen(folders: dict[str, Path]) -> Callable[[str], np.ndarray]:
    """Embeddings of the picture by transformers."""
    return cache(lambda kind: gemma4_transformers.see(gemma4_transformers.load(folders[kind]), gemma4_towers.picture()))


def alike(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Correlation of all numbers."""
    assert ours.shape == theirs.shape
    return float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1])


@pytest.mark.parametrize("quant", SEEN)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_that_of_the_reference_converter(
    artifacts: Callable[[str, str], Path], references: dict[tuple[str, str], Path], kind: str, quant: str
) -> None:
    """Bit by bit but for log(1 + e^x), where torch is off by one in the last place at times."""
    (our_keys, our_tensors), (their_keys, their_tensors) = (
        read_gguf(path) for path in (seeing.projector(artifacts(kind, quant)), references[kind, quant])
    )
    for name in [name for name in their_tensors if name.endswith("per_dim_scale.weight")]:
        (*form, ours), (*their_form, theirs) = our_tensors.pop(name), their_tensors.pop(name)
        assert form == their_form and np.abs(np.frombuffer(ours, "i4") - np.frombuffer(theirs, "i4")).max() <= 1
    assert our_tensors == their_tensors
    assert {key: our_keys.pop(key)[1] for key in OURS_ALONE} == OURS_ALONE
    assert not THEIRS_ALONE - their_keys.keys() and not THEIRS_ALONE & our_keys.keys()
    for key in OTHERWISE | THEIRS_ALONE:
        our_keys.pop(key, None)
        their_keys.pop(key, None)
    assert our_keys == their_keys


@pytest.mark.parametrize("quant", SEEN)
@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_sees_what_transformers_sees(
    encoded: Callable[[str, str], list[np.ndarray]], seen: Callable[[str], np.ndarray], kind: str, quant: str
) -> None:
    image = encoded(kind, quant)[0]
    assert image.shape == (77, 256)
    assert alike(image, seen(kind)) > SEEN[quant]


@pytest.mark.parametrize("kind", [kind for kind, model in KINDS.items() if not model.unified])
def test_llama_cpp_approximates_the_activation_of_a_file_that_does_not_name_it(
    artifacts: Callable[[str, str], Path],
    references: dict[tuple[str, str], Path],
    seen: Callable[[str], np.ndarray],
    kind: str,
) -> None:
    """As the converter's do not: this is why ours have a key more."""
    (image,) = mtmd.encode(seeing.text(artifacts(kind, "f16")), references[kind, "f16"], gemma4_towers.picture())
    assert 0.9997 < alike(image, seen(kind)) < 0.99999


@pytest.mark.parametrize("kind", HEARING)
def test_llama_cpp_hears_what_transformers_hears(
    encoded: Callable[[str, str], list[np.ndarray]], folders: dict[str, Path], kind: str
) -> None:
    """transformers adds a floor to the loudness of a band and llama.cpp lifts it to the floor: quiet bands differ."""
    model = gemma4_transformers.load(folders[kind])
    features = gemma4_transformers.features(folders[kind], gemma4_towers.sound())
    heard = gemma4_transformers.hear(model, features)
    if not KINDS[kind].unified:
        assert alike(encoded(kind, "f16")[1], heard) > 0.9998
        heard = gemma4_transformers.hear(model, np.log(np.maximum(np.exp(features) - FLOOR, FLOOR)))
    for quant, least in HEARD.items():
        assert alike(encoded(kind, quant)[1], heard) > least, quant
