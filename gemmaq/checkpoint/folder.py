"""Open a folder with config.json and safetensors files: Hugging Face, MLX or compressed-tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gemmaq.checkpoint import GAPS, Checkpoint, Part, Tensor, embedder, plain, presence
from gemmaq.checkpoint.assemble import idle_tensors, surplus, text_tensors
from gemmaq.checkpoint.schemes import settings
from gemmaq.checkpoint.schemes.scheme import Scheme, split
from gemmaq.checkpoint.stacks import joined, sliced
from gemmaq.checkpoint.stored import Arrays, arrays_in
from gemmaq.checkpoint.tokenizer import files_of
from gemmaq.encodings import ENCODINGS
from gemmaq.errors import InputError, UnsupportedModelError
from gemmaq.files.text import read_card, read_json
from gemmaq.models import families, hf_values
from gemmaq.models.family import Family
from gemmaq.models.towers import Towers

_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
_ENCODINGS = {"BF16": ENCODINGS["bf16"], "F16": ENCODINGS["f16"], "F32": ENCODINGS["f32"]}


def open_folder(folder: Path, name: str, location: str, weights: str | None = None) -> Checkpoint:
    """Read the config and the headers of a folder with safetensors files.

    Args:
        folder: Folder with config.json.
        name: Name of the model.
        location: SOURCE as the user typed it.
        weights: Weight file that the user chose, see `weight_files.choose`; None for no choice.

    Raises:
        NotFoundError: config.json or weights are missing.
        InputError: A file is unusable.
    """
    document = read_json(folder / "config.json")
    scheme = settings.of_config(document, folder)
    try:
        family = families.of_config(document)
    except UnsupportedModelError as error:
        entries = (entry for _, entry in arrays_in(folder, weights).arrays.values())
        error.tensors = tuple((e.dtype.lower(), math.prod(e.shape), e.nbytes) for e in entries)
        raise
    names, config = family.names, family.configs.from_hf(document)
    stored = arrays_in(folder, weights)
    tower_arrays, modules = _modules(stored.arrays, family)
    shapes = dict(names.shapes(config))
    shapes[names.HEAD] = shapes[names.EMBEDDING]
    shapes |= {name: shapes[other] for name, other in names.idle(config).items()}
    stacks = sliced(family, config, modules)
    shapes |= {piece.name: piece.shape for stack in stacks for piece in stack.slices}
    by_name = {name: _tensor(name, scheme, arrays, shapes.get(name)) for name, arrays in modules.items()}
    for stack in stacks:
        by_name[stack.name] = joined(stack, by_name)
        for piece in stack.slices:
            del by_name[piece.name]
    tensors = list(by_name.values())
    if stored.error is not None and any(name not in by_name for name, _ in names.shapes(config)):
        raise stored.error
    if "vocab_size" not in hf_values.text_side(document):
        rows = [tensor.shape[0] for tensor in tensors if tensor.name == names.EMBEDDING and tensor.shape]
        config = family.configs.with_vocabulary(config, rows[0]) if rows else config
    losses: tuple[str, ...] = ()
    for tensor in tensors:
        if tensor.name == names.EMBEDDING and tensor.shape:
            losses += presence.tokens_cut(folder, config.vocab_size, tensor.shape[0])
    ordered, notes = text_tensors(tensors, family, config, origin=str(folder))
    notes += family.configs.KEYS.unread(document)
    notes = (*stored.notes, *notes)
    described, absent = presence.towers_present(document, tower_arrays, family)
    losses += absent
    towers: dict[str, Tensor] = {}
    towers_config, towers_error = None, None
    if tower_arrays and family.towers is None:
        size = sum(entry.nbytes for arrays in tower_arrays.values() for _, entry in arrays.values()) / 1e9
        usual = f"vision and audio ({size:.2f} GB) are left out: gemmaq converts the text side of {family.title}"
        if family.drafts:
            notes += (family.outside or usual,)
        else:
            losses += (family.outside or usual,)
    elif tower_arrays and family.towers is not None:
        try:
            towers_config = family.towers.from_hf(described, _processor(folder))
            expected = dict(family.towers.shapes(towers_config, config.hidden_size))
            found = _towers(tower_arrays, scheme, family.towers, expected)
        except InputError as error:
            towers_config, towers_error = None, error
            notes += (f"vision and audio cannot be read: {error.message}",)
        else:
            losses += surplus([name for name in found if name not in expected])
            towers = {name: tensor for name, tensor in found.items() if name in expected}
            if (gap := presence.incomplete(towers, expected, family.towers)) is not None:
                towers, towers_config, towers_error = {}, None, gap
                notes += (gap.message,)
    if (remark := family.remark(document)) is not None:
        losses += (remark,)
    tokenizer_files = files_of(folder, family)
    if tokenizer_files.templates is not None:
        notes += tokenizer_files.templates.notes
    return Checkpoint(
        name=name,
        location=location,
        format=scheme.format,
        family=family,
        config=config,
        tensors=ordered,
        idle=idle_tensors(tensors, ordered, family, config, origin=str(folder)),
        towers=towers,
        towers_config=towers_config,
        towers_error=towers_error,
        processor_files=tuple(folder / f for f in _PROCESSOR if (folder / f).is_file()) if towers else (),
        embedder=embedder.of_folder(folder, family) if family.embeds else None,
        generation=read_json(folder / "generation_config.json", {}),
        card=read_card(folder / "README.md"),
        tokenizer_files=tokenizer_files,
        notes=(*notes, *((scheme.note,) if scheme.note else ())),
        losses=losses,
        untied=hf_values.text_side(document).get("tie_word_embeddings") is False,
    )


def _modules(entries: Arrays, family: Family) -> tuple[dict[str, Arrays], dict[str, Arrays]]:
    """Arrays of every tensor by suffix: of the towers, by name in the folder, and of the text model."""
    towers: dict[str, Arrays] = {}
    modules: dict[str, Arrays] = {}
    for entry, place in entries.items():
        whole, suffix = split(entry)
        name = family.names.canonical(whole)
        if name is None:
            towers.setdefault(whole, {})[suffix] = place
        elif suffix in modules.setdefault(name, {}):
            raise InputError(f"has two tensors for {name}", path=place[0])
        else:
            modules[name][suffix] = place
    return towers, modules


def _towers(
    modules: Mapping[str, Arrays], scheme: Scheme, towers: Towers, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The tensors of the towers by canonical name; `shapes` has the shape of each by the config.

    Raises:
        InputError: A tensor is stored in an unreadable type, or present twice.
    """
    tensors: dict[str, Tensor] = {}
    for stored, arrays in modules.items():
        name = towers.canonical(stored)
        if name is None:
            continue
        if name in tensors:
            raise InputError(f"has two tensors for {name}", path=next(iter(arrays.values()))[0])
        tensor = replace(_tensor(name, scheme, arrays, shapes.get(name)), place=towers.place(name))
        shape = shapes.get(name, tensor.shape)
        moved = towers.channels_last(name, shape)
        if moved is not None and tensor.shape == moved.shape != shape:
            if tensor.parts[0].is_strided:
                raise InputError(*GAPS, path=tensor.span, tensor=stored)
            tensor = plain(
                name, shape, tensor.encoding, span=tensor.span, offset=tensor.parts[0].offset, place=tensor.place
            )
            tensor = replace(tensor, arrangement=moved)
        tensors[name] = tensor
    return tensors


def _processor(folder: Path) -> dict[str, Any]:
    """Settings of the processor: those of the newer file count first, and those for images before those for all."""
    settings: dict[str, Any] = {}
    for name in _PROCESSOR:
        document = read_json(folder / name, {})
        image = document.get("image_processor")
        settings |= {**document, **(image if isinstance(image, Mapping) else {})}
    return settings


def _tensor(name: str, scheme: Scheme, arrays: Arrays, shape: tuple[int, ...] | None) -> Tensor:
    """A tensor from its arrays: floats, or quantized by the scheme of the folder."""
    for span, entry in arrays.values():
        if min(entry.shape, default=1) < 1:
            raise InputError(f"has the shape {list(entry.shape)}", path=span, tensor=entry.name)
    if shape is None and len(arrays) > 1:  # no part of the model by its config, so that its width is not known
        return Tensor(name, entry.shape, _ENCODINGS["BF16"], (Part(span, entry.offset, 0),))
    tensor = scheme.tensor(name, arrays, shape)
    if tensor is not None:
        if any(each.strides is not None for _, each in arrays.values()):
            raise InputError(*GAPS, path=span, tensor=entry.name)
        return replace(tensor, stored_name=next(iter(arrays.values()))[1].name)
    if entry.dtype not in _ENCODINGS:
        raise InputError(
            f"has dtype {entry.dtype}", f"supported: {', '.join(_ENCODINGS)}", path=span, tensor=entry.name
        )
    tensor = plain(name, entry.shape, _ENCODINGS[entry.dtype], span=span, offset=entry.offset, strides=entry.strides)
    return replace(tensor, stored_name=entry.name)
