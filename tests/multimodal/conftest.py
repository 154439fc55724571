"""One multimodal model for all these tests, in every layout of names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gemma4_towers
import seeing
from inprocess import run
from runtimes import Require, need

Layouts = dict[str, Path]


@pytest.fixture(scope="session")
def eyes(tmp_path_factory: pytest.TempPathFactory, sample_bf16: Path, require: Require) -> Layouts:
    """Layout of names -> the folder; all have the same weights and the same folder name."""
    need(require, "torch", "transformers")
    work = tmp_path_factory.mktemp("eyes")
    first = work / "transformers/gemma-3-eye"
    seeing.write_model(first, seeing.build(seeing.config_of()), sample_bf16)
    others = {name: rename for name, rename in seeing.LAYOUTS.items() if name != "transformers"}
    return {"transformers": first} | {
        name: seeing.relabel(first, work / name / "gemma-3-eye", rename) for name, rename in others.items()
    }


@pytest.fixture(scope="session")
def eye(eyes: Layouts) -> Path:
    """The model with the names of the original release."""
    return eyes["original"]


@pytest.fixture(scope="session")
def near(tmp_path_factory: pytest.TempPathFactory, sample_bf16: Path, require: Require) -> Path:
    """A model that pools 2 x 2 patches, not 4 x 4, with the names of the original release."""
    need(require, "torch", "transformers")
    work = tmp_path_factory.mktemp("near")
    model = seeing.build(seeing.config_of(image_size=112), seed=1)
    seeing.write_model(work / "saved/gemma-3-near", model, sample_bf16)
    return seeing.relabel(work / "saved/gemma-3-near", work / "gemma-3-near", seeing.LAYOUTS["original"])


@pytest.fixture(scope="session")
def int4(tmp_path_factory: pytest.TempPathFactory, eye: Path) -> Path:
    """The model with a Q4_0 body, for all three runtimes by one command: folders gguf, mlx and safetensors."""
    out = tmp_path_factory.mktemp("int4") / "out"
    run("convert", eye, "--to", "gguf", "--to", "mlx", "--to", "safetensors", "--quant", "q4_0", "-o", out)
    return out


@pytest.fixture(scope="session")
def dense(eye: Path) -> Any:
    """The model in transformers, f32. Who changes it puts it back."""
    return seeing.load(eye)


@pytest.fixture(scope="session")
def processor(eye: Path) -> Any:
    """Its processor."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(eye)


@pytest.fixture(scope="session")
def gemma4_releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of every kind of Gemma 4 with towers."""
    return gemma4_towers.folders(tmp_path_factory.mktemp("releases"))
