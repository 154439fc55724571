"""Small artifacts of every kind, made by `gemmaq convert` of a model of a few layers."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemmaq.models.gemma3 import towers
from gemmaq.models.gemma3.config import to_hf
from gemmaq.models.gemma3.names import shapes
from gemmaq.models.gemma3.vision_config import VisionConfig
from inprocess import run
from synthetic import TINY, bf16, write_safetensors

EYE = VisionConfig(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=56,
    tokens=4,
    image_token=319,
    boi_token=6,
    eoi_token=7,
)
FOREIGN = (
    "{% for m in messages %}<start_of_turn>{{ m['role'] }} {{ tools }} {{ m['content'] }}<end_of_turn>{% endfor %}"
)


@dataclass(frozen=True)
class Sources:
    """Checkpoints: text that chats, text that completes, one with a template of its own, one that sees."""

    chat: Path
    pretrained: Path
    foreign: Path
    seeing: Path


def sources(tiny: Path, root: Path) -> Sources:
    """The checkpoints, made of the tiny one."""
    names = ("gemma-3-1b-it", "gemma-3-1b-pt", "gemma-3-1b-tools", "gemma-3-4b-it-qat-q4_0-unquantized")
    made = Sources(*(root / name for name in names))
    for folder in (made.chat, made.pretrained, made.foreign):
        shutil.copytree(tiny, folder)
    set_template(made.chat, None)
    set_template(made.pretrained, None)
    set_template(made.foreign, FOREIGN)
    (made.chat / "generation_config.json").write_text(json.dumps({"top_k": 32, "top_p": 0.9, "do_sample": True}))
    write_seeing(made.seeing, tiny)
    return made


def set_template(folder: Path, template: str | None) -> None:
    """Give a checkpoint a chat template, or none."""
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    if template is not None:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def give_image_tokens(folder: Path) -> None:
    """Give the vocabulary of a checkpoint, which is cut, the tokens before and behind an image, if it lists tokens."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    added = settings.get("added_tokens_decoder")
    if added is None:
        return
    for text, (place, usual) in {"<start_of_image>": (6, 255999), "<end_of_image>": (7, 256000)}.items():
        added[str(place)] = added.pop(str(usual))
        assert added[str(place)]["content"] == text
    path.write_text(json.dumps(settings))


def convert(source: Path, folder: Path, *flags: object) -> Path:
    """What `gemmaq convert` makes of a checkpoint."""
    run("convert", source, "-o", folder, "-q", *flags)
    return folder


def write_seeing(folder: Path, tiny: Path, seed: int = 3) -> Path:
    """The tiny model with a vision side of two layers."""
    folder.mkdir(parents=True)
    for path in tiny.iterdir():
        if "token" in path.name:
            shutil.copy(path, folder)
    set_template(folder, None)
    give_image_tokens(folder)
    text = to_hf(TINY, "bfloat16")
    config: dict[str, Any] = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": text,
    }
    config |= {"vision_config": towers.to_hf_config(EYE), **towers.token_keys(EYE)}
    (folder / "config.json").write_text(json.dumps(config))
    for name, document in towers.processor_files(EYE).items():
        (folder / name).write_text(json.dumps(document))
    random = np.random.default_rng(seed)
    every = [(f"language_model.{name}", shape) for name, shape in shapes(TINY)] + list(
        towers.shapes(EYE, TINY.hidden_size)
    )
    data = {name: bf16(random.standard_normal(shape, np.float32) * np.float32(0.05)) for name, shape in every}
    write_safetensors(folder / "model.safetensors", {name: ("BF16", shape) for name, shape in every}, data)
    return folder
