"""The model.yaml of an artifact: LM Studio's fields, the memory of `gemmaq estimate-vram`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

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


def valid(document: dict[str, Any]) -> dict[str, Any]:
    """The document, by the schema of lmstudio-js: VirtualModelDefinition, and of its custom fields the boolean ones."""
    assert document.keys() <= {"model", "base", "tags", "config", "metadataOverrides", "customFields", "suggestions"}
    assert re.fullmatch(r"[^/]+/[^/]+", document["model"])
    for base in document["base"]:
        assert isinstance(base["key"], str)
        assert all(source.keys() == {"type", "user", "repo"} for source in base["sources"])
    lists = ("architectures", "compatibilityTypes", "paramsStrings")
    flags = ("trainedForToolUse", "vision", "reasoning", "fim")
    for key, value in document["metadataOverrides"].items():
        if key in lists:
            assert all(isinstance(one, str) for one in value)
        elif key in flags:
            assert value in (True, False, "mixed")
        else:
            assert key in ("domain", "minMemoryUsageBytes", "contextLengths")
    for part in document.get("config", {}).values():
        assert all(field.keys() == {"key", "value"} for field in part["fields"])
    for custom in document.get("customFields", []):
        assert custom.keys() == {"key", "displayName", "description", "type", "defaultValue", "effects"}
        assert custom["type"] == "boolean" and isinstance(custom["defaultValue"], bool)
        assert all(effect.keys() == {"type", "variable"} for effect in custom["effects"])
        assert {effect["type"] for effect in custom["effects"]} <= {"setJinjaVariable"}
    return document


def test_a_switch_for_thoughts(gemma4s: dict[str, Path], seeing: Path) -> None:
    """As models of LM Studio's catalog have it, if the chat template knows its variable."""
    artifact = read_artifact(gemma4s["small"])
    document = valid(yaml.safe_load(model_yaml.text(artifact, "Me/gemma-4-E2B-it-Q4_0-GGUF")))
    (switch,) = document["customFields"]
    assert (switch["key"], switch["type"], switch["defaultValue"]) == ("enableThinking", "boolean", True)
    assert switch["effects"] == [{"type": "setJinjaVariable", "variable": "enable_thinking"}]
    about = document["metadataOverrides"]
    assert (about["reasoning"], about["trainedForToolUse"]) == (True, True)
    assert (about["paramsStrings"], about["architectures"]) == (["E2B"], ["gemma4"])
    assert document["model"] == "me/gemma-4-e2b-it-q4_0"
    assert document["base"][0]["key"] == "Me/gemma-4-E2B-it-Q4_0-GGUF"
    for folder in (gemma4s["large"], gemma4s["pretrained"], seeing):
        plain = valid(yaml.safe_load(model_yaml.text(read_artifact(folder), "me/model")))
        assert "customFields" not in plain and "reasoning" not in plain["metadataOverrides"]
        assert plain["model"] == "me/model"


def test_an_entry_is_not_named_like_its_files(gemma4s: dict[str, Path]) -> None:
    artifact = read_artifact(gemma4s["small"])
    names = [model_yaml.model_name(artifact, name) for name in ("Me/A-GGUF", "me/a", "me/-gguf", "me/a-mlx")]
    assert names == ["me/a", "me/a-thinking", "me/-gguf-thinking", "me/a-mlx-thinking"]


def test_sizes_in_names(gemma4s: dict[str, Path]) -> None:
    artifact = read_artifact(gemma4s["small"])
    for name, size in (("gemma-4-26B-A4B-it", ["26B-A4B"]), ("gemma-4-12b", ["12B"]), ("gemma-3-270m-it", ["270M"])):
        document = yaml.safe_load(model_yaml.text(replace(artifact, name=name), "me/model"))
        assert document["metadataOverrides"]["paramsStrings"] == size


def test_memory_is_that_of_the_command(chat: Path) -> None:
    artifact = read_artifact(chat)
    context = min(4096, artifact.checkpoint.config.max_position_embeddings)
    flags = ("--engine", "lmstudio", "--context", context, "--json")
    (estimate,) = json.loads(run("estimate-vram", chat, *flags).stdout)["estimates"]
    assert model_yaml.memory(artifact) == estimate["bytes"]["total"]
