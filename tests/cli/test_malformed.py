"""Values of another kind, numbers beyond their type and deep nesting are told as unusable input, never as a bug."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from damage import edit_gguf_keys, edit_gguf_tensors, edit_json, small_model
from inprocess import refused, run

Change = Callable[[Path], object]


def setting(file: str, *keys: Any, value: Any) -> Change:
    """A change of a value in a JSON file."""

    def change(folder: Path) -> None:
        def edit(document: dict[str, Any]) -> None:
            holder: Any = document
            for key in keys[:-1]:
                holder = holder[key] if isinstance(holder, list) else holder.setdefault(key, {})
            holder[keys[-1]] = value

        if not (folder / file).exists():
            (folder / file).write_text("{}")
        edit_json(folder / file, edit)

    return change


def deep(file: str, opening: str, closing: str, levels: int = 3000) -> Change:
    return lambda folder: (folder / file).write_text('{"x": ' + opening * levels + "1" + closing * levels + "}")


def without_model(change: Change) -> Change:
    """The same where tokenizer.json is the only vocabulary."""

    def both(folder: Path) -> None:
        (folder / "tokenizer.model").unlink(missing_ok=True)
        change(folder)

    return both


def added(*entries: Any) -> Change:
    """added_tokens of tokenizer.json, beside a tokenizer.model."""
    return setting("tokenizer.json", "added_tokens", value=list(entries))


TOKEN = {"content": "<mine>", "special": True}
CHANGES: dict[str, Change] = {
    "an id below zero": added({**TOKEN, "id": -1}),
    "an id that is a text": added({**TOKEN, "id": "7"}),
    "an id beyond its type": added({**TOKEN, "id": 2**63}),
    "an id that is a number with a fraction": added({**TOKEN, "id": 0.5}),
    "no id": added(TOKEN),
    "a token that is a number": added(7),
    "a token without a text": added({"id": 7, "content": None}),
    "a decoder's key below zero": setting("tokenizer_config.json", "added_tokens_decoder", "-1", value=TOKEN),
    "a decoder's key of many digits": setting("tokenizer_config.json", "added_tokens_decoder", "9" * 5000, value=TOKEN),
    "a decoder's entry that is a list": setting("tokenizer_config.json", "added_tokens_decoder", "7", value=[]),
    "a named token below zero": setting("added_tokens.json", "<mine>", value=-1),
    "a named token that is a list": setting("added_tokens.json", "<mine>", value=[]),
    "a vocabulary with a text for an id": without_model(setting("tokenizer.json", "model", "vocab", "a", value="x")),
    "a vocabulary with an id below zero": without_model(setting("tokenizer.json", "model", "vocab", "a", value=-5)),
    "a vocabulary with a huge id": without_model(setting("tokenizer.json", "model", "vocab", "a", value=2**62)),
    "a deep list in the config": deep("config.json", "[", "]"),
    "a deep object in the config": deep("config.json", '{"a":', "}"),
    "a list that is not so deep": deep("config.json", "[", "]", 400),
    "a deep list in the tokenizer": without_model(deep("tokenizer.json", "[", "]")),
    "layers that are a list": setting("config.json", "num_hidden_layers", value=[2]),
    "a size beyond its type": setting("config.json", "hidden_size", value=2**64),
    "a list of types that are lists": setting("config.json", "layer_types", value=[[], []]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_malformed_folder_is_told(name: str, tmp_path: Path) -> None:
    model = small_model(tmp_path / "model")
    CHANGES[name](model)
    refused(3, (), "convert", model, "--method", "nearest", "-o", tmp_path / "out", under=tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 3000 + "]" * 3000,
        "x = " + "{a=" * 3000 + "1" + "}" * 3000,
        "quant = " + "[" * 200 + "]" * 200,
        "quant = 1",
        "to = [1]",
        "rules = 1",
        "rules = [1]",
        "[[rules]]\nmatch = []",
        "quant = nan",
        "quant = 1979-05-27",
        "a = " + "9" * 5000,
    ],
)
def test_a_malformed_recipe_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    model = small_model(tmp_path / "model")
    refused(2, (), "convert", model, "--recipe", tmp_path / "mine.toml", "-o", tmp_path / "out", under=tmp_path)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifact")
    run("convert", small_model(root / "model"), "--method", "nearest", "-q", "-o", root / "out")
    return next((root / "out").glob("*.gguf"))


def types(value: int, kind: int = 5) -> Callable[[dict[str, tuple[int, bytes]]], object]:
    """All types of tokens are a value, in an array of I32 (5) or F32 (6)."""

    def change(keys: dict[str, tuple[int, bytes]]) -> None:
        count = struct.unpack_from("<Q", keys["tokenizer.ggml.token_type"][1], 4)[0]
        one = struct.pack("<i" if kind == 5 else "<f", value)
        keys["tokenizer.ggml.token_type"] = (9, struct.pack("<IQ", kind, count) + one * count)

    return change


@pytest.mark.parametrize("change", [types(-1), types(7), types(2**31 - 1)])
def test_types_of_tokens_that_are_none_are_told(change: Any, artifact: Path, tmp_path: Path) -> None:
    copy = tmp_path / artifact.name
    copy.write_bytes(artifact.read_bytes())
    edit_gguf_keys(copy, change)
    for container in ("gguf", "mlx"):
        refused(3, ("token",), "convert", copy, "--to", container, "-o", tmp_path / "out", under=tmp_path)


@pytest.mark.parametrize("number", [24, 25, 26, 27, 28])
def test_tensors_of_whole_numbers_are_told(number: int, artifact: Path, tmp_path: Path) -> None:
    copy = tmp_path / artifact.name
    copy.write_bytes(artifact.read_bytes())
    edit_gguf_tensors(copy, {"output_norm.weight": number})
    for arguments in (("inspect", copy), ("convert", copy, "-o", tmp_path / "out"), ("estimate-vram", copy)):
        refused(3, (), *arguments, under=tmp_path)


def test_json_that_is_not_deep_is_read(tmp_path: Path) -> None:
    model = small_model(tmp_path / "model")
    edit_json(model / "config.json", lambda d: d.update(more=json.loads("[" * 50 + "]" * 50)))
    run("inspect", model)
