"""The model.yaml of an artifact: LM Studio's fields, the memory of `gemmaq estimate-vram`."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from gemmaq.runtimes import model_yaml
from gemmaq.runtimes.artifact import read_artifact
from inprocess import run


def test_fields_of_gguf_and_mlx(seeing: Path, mlx: Path) -> None:
    document = yaml.safe_load(model_yaml.text(read_artifact(seeing), "Me/Model-GGUF"))
    assert document["model"] == "me/model-gguf"
    (base,) = document["base"]
    assert base == {"key": "Me/Model-GGUF", "sources": [{"type": "huggingface", "user": "Me", "repo": "Model-GGUF"}]}
    about = document["metadataOverrides"]
    assert (about["vision"], about["paramsStrings"], about["compatibilityTypes"]) == (True, ["4B"], ["gguf"])
    about = yaml.safe_load(model_yaml.text(read_artifact(mlx), "me/model"))["metadataOverrides"]
    assert (about["vision"], about["compatibilityTypes"]) == (False, ["safetensors"])
    assert about["architectures"] == [json.loads((mlx / "config.json").read_text())["model_type"]]


def test_memory_is_that_of_the_command(chat: Path) -> None:
    artifact = read_artifact(chat)
    context = min(4096, artifact.checkpoint.config.max_position_embeddings)
    flags = ("--engine", "lmstudio", "--context", context, "--json")
    (estimate,) = json.loads(run("estimate-vram", chat, *flags).stdout)["estimates"]
    assert model_yaml.memory(artifact) == estimate["bytes"]["total"]
