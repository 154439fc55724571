"""The towers of a model in GGUF: an mmproj file beside it, with the names that they have in a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gemmaq.checkpoint import Checkpoint, plain
from gemmaq.checkpoint.assemble import surplus
from gemmaq.checkpoint.gguf_checkpoint import encoding_of
from gemmaq.checkpoint.presence import incomplete
from gemmaq.errors import InputError
from gemmaq.files.gguf_reader import GgufFile
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family
from gemmaq.models.hf_values import is_count
from gemmaq.models.towers import Towers
from gemmaq.models.towers_config import TowersConfig


def misfit(projector: GgufFile, keys: Mapping[str, Any], family: Family, config: TextConfig) -> str | None:
    """Why a file cannot be the projector of a model, a clause of a sentence; None if it can.

    Args:
        projector: Header of the file.
        keys: Keys of the model's file; its vocabulary is in them.
        family: The model's family.
        config: Its dimensions.
    """
    if projector.keys.get("general.architecture") != "clip":
        return "it is no mmproj file"
    if family.towers is None:
        return f"gemmaq converts the text side of {family.title}"
    pieces = _pieces(keys)
    try:
        towers = _config(projector, family.towers, pieces)
    except InputError as error:
        return error.message
    for sense in ("vision", "audio"):
        width = projector.keys.get(f"clip.{sense}.projection_dim", config.hidden_size)
        if not is_count(width) or width != config.hidden_size:
            return f"it is for a model of width {width!r:.60}, not {config.hidden_size}"
    missing = [marker for marker in family.towers.markers(towers) if pieces and marker not in pieces]
    return f"the model's vocabulary lacks {missing[0]}" if missing else None


def built_in(model: GgufFile, family: Family) -> GgufFile | None:
    """The towers in a model's own file, as Ollama has them, as if they were an mmproj file; None if there are none."""
    if family.towers is None:
        return None
    keys, names = family.towers.built_in(model.keys, [info.name for info in model.tensors])
    if not names:
        return None
    tensors = tuple(replace(info, name=names[info.name]) for info in model.tensors if info.name in names)
    return replace(model, keys={"general.architecture": "clip", **keys}, tensors=tensors)


def with_towers(model: Checkpoint, projector: GgufFile, keys: Mapping[str, Any]) -> Checkpoint:
    """A GGUF model with the towers in the mmproj file that belongs to it.

    Args:
        model: The model.
        projector: Header of the file.
        keys: Keys of the model's file.

    Raises:
        InputError: The keys of the projector say nothing about the family's towers, or a tensor cannot be read.
    """
    family, towers = model.family, model.family.towers
    assert towers is not None
    towers_config = _config(projector, towers, _pieces(keys))
    stored, tensors = {info.name: info for info in projector.tensors}, {}
    others = set(stored)
    for name, shape in towers.shapes(towers_config, model.config.hidden_size):
        info = stored.get(towers.to_gguf(name))
        if info is None:
            continue
        others.discard(info.name)
        arrangement = towers.in_gguf(name, shape)
        if info.shape != (shape if arrangement is None else arrangement.shape):
            shape, arrangement = info.shape, None  # not as the keys say: refused when it is to be written
        shift = -family.gguf.NORM_SHIFT if towers.is_norm(name) else 0.0
        encoding, place = encoding_of(projector, info), towers.place(name)
        tensor = plain(name, shape, encoding, span=projector.span, offset=info.offset, shift=shift, place=place)
        tensors[name] = replace(tensor, arrangement=arrangement)
    losses = (*model.losses, *surplus(sorted(others)))
    gap = incomplete(tensors, dict(towers.shapes(towers_config, model.config.hidden_size)), towers)
    if gap is not None:
        told = (*model.notes, gap.message)
        return replace(model, towers_error=gap.at(path=projector.span), losses=losses, notes=told)
    return replace(model, towers=tensors, towers_config=towers_config, losses=losses)


def _config(projector: GgufFile, towers: Towers, pieces: list[str]) -> TowersConfig:
    return towers.from_keys(projector.keys, {info.name: info.shape for info in projector.tensors}, pieces)


def _pieces(keys: Mapping[str, Any]) -> list[str]:
    """The vocabulary of a model, empty if its file has none."""
    pieces = keys.get("tokenizer.ggml.tokens")
    return pieces if isinstance(pieces, list) else []
