"""What an mmproj file must have in common with a model, and the tensors that it gives it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from artifacts import EYE, convert, write_seeing
from gemmaq.checkpoint.projector import misfit, with_towers
from gemmaq.files.gguf_reader import GgufFile, parse
from gemmaq.files.span import FileSpan
from gemmaq.models import families, gemma4
from gemmaq.models.gemma3 import FAMILY, towers
from gemmaq.models.gemma4 import towers as gemma4_towers
from gemmaq.sources.open import open_source
from synthetic import TINY

SPAN = FileSpan((Path("mmproj.gguf"),), (0,), 0)
MODEL = {"tokenizer.ggml.tokens": ["a", "<start_of_image>", "<end_of_image>"]}


def keys(**changes: Any) -> dict[str, Any]:
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    found = {"general.architecture": "clip", **towers.to_keys(EYE, TINY.hidden_size)} | changed
    return {key: value for key, value in found.items() if value is not None}


def why(model: dict[str, Any] | None = None, **changes: Any) -> str | None:
    file = GgufFile(SPAN, 3, keys(**changes), (), 0)
    return misfit(file, MODEL if model is None else model, FAMILY, TINY)


def test_a_projector_that_fits() -> None:
    assert why() is None
    assert why({}) is None, "a model without a vocabulary is refused elsewhere"
    assert why(clip__audio__projection_dim=TINY.hidden_size) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"general__architecture": "gemma3"}, "it is no mmproj file"),
        ({"general__architecture": None}, "it is no mmproj file"),
        ({"clip__projector_type": "llava"}, "the projector is of the type 'llava', not gemma3"),
        ({"clip__vision__block_count": "many"}, "GGUF key clip.vision.block_count is 'many'"),
        ({"clip__vision__projection_dim": 2560}, "it is for a model of width 2560, not 64"),
        ({"clip__audio__projection_dim": 65}, "it is for a model of width 65, not 64"),
    ],
)
def test_why_a_file_is_not_the_models(changes: dict[str, Any], reason: str) -> None:
    assert why(**changes) == reason


def test_a_vocabulary_needs_the_tokens_around_an_image() -> None:
    assert why({"tokenizer.ggml.tokens": ["<start_of_image>"]}) == "the model's vocabulary lacks <end_of_image>"
    assert why({"tokenizer.ggml.tokens": ["a"]}) == "the model's vocabulary lacks <start_of_image>"


def test_a_model_that_hears_needs_the_tokens_around_a_sound() -> None:
    """Those of images do for a projector that has no audio tower."""
    size = next(size for size in gemma4.FAMILY.sizes if size.label == "E2B")
    deaf = replace(size.towers_config, audio=None)
    pieces = {"tokenizer.ggml.tokens": ["a", "<|image>", "<image|>"]}
    for config, reason in ((size.towers_config, "the model's vocabulary lacks <|audio>"), (deaf, None)):
        keys = {"general.architecture": "clip", **gemma4_towers.to_keys(config, size.config.hidden_size)}
        assert misfit(GgufFile(SPAN, 3, keys, (), 0), pieces, gemma4.FAMILY, size.config) == reason


def test_a_family_without_towers_takes_none() -> None:
    family = next(family for family in families.FAMILIES if family.embeds)
    file = GgufFile(SPAN, 3, keys(), (), 0)
    assert misfit(file, MODEL, family, TINY) == f"gemmaq converts the text side of {family.title}"


def test_a_model_with_its_towers(tiny: Path, tmp_path: Path) -> None:
    made = convert(write_seeing(tmp_path / "gemma-3-4b-it", tiny), tmp_path / "made")
    text, projector = (next(made.glob(f"{kind}*.gguf")) for kind in ("gemma", "mmproj"))
    whole = open_source(str(text))
    blind = replace(whole, towers={}, towers_config=None)
    seeing = with_towers(blind, parse(FileSpan.of(projector)), MODEL)
    assert seeing.towers == whole.towers and seeing.towers_config == whole.towers_config
    assert set(seeing.towers) == {name for name, _ in towers.shapes(EYE, TINY.hidden_size)}
