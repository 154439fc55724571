"""The GGUF container.

Source of the layout: ggml's docs/gguf.md; keys as llama.cpp's converter and llama-quantize write them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint import Checkpoint
from gemmaq.checkpoint.tokenizer import Tokenizer
from gemmaq.containers.layout import OutputFile, Piece, Placement, StoredArray, shard_names, split
from gemmaq.encodings import ENCODINGS, Encoding, codec
from gemmaq.files import gguf_reader
from gemmaq.files.gguf_writer import F32, I32, U16, U32, Info, Keys, aligned, header
from gemmaq.files.sentencepiece import SPACE, USER_DEFINED
from gemmaq.files.span import FileSpan
from gemmaq.models.families import size_label
from gemmaq.models.family import License, Vocabulary
from gemmaq.models.identity import Identity, identify, title
from gemmaq.planning.plan import Format, PieceSpec, Plan, PlannedTensor

if TYPE_CHECKING:
    from gemmaq.encodings import U8, Values


def _pieces(encoding: Encoding, columns: int) -> tuple[PieceSpec, ...]:
    return (PieceSpec("weight", encoding.label, columns, encoding.row_bytes(columns)),)


def _default_embedding(body: Encoding) -> str:
    """Rows are looked up as well as multiplied with, worth more bits: Q6_K (Q8_0 where 256 does not divide them)."""
    return body.name if body.is_float or body.bits >= 8 else "q6_k"


def _holds(encoding: Encoding) -> bool:
    return encoding.ggml_type is not None


FORMAT = Format(
    name="gguf",
    holds=_holds,
    holds_embedding=_holds,
    gguf_names=True,
    vector=ENCODINGS["f32"],
    default_embedding=_default_embedding,
    pieces=_pieces,
    portable=False,
)

_QUANTIZATION_VERSION = 2
_SAMPLING = {
    "top_k": ("top_k", I32), "top_p": ("top_p", F32), "min_p": ("min_p", F32), "temperature": ("temp", F32),
}  # fmt: skip
"""generation_config.json -> key under general.sampling and its type."""
_SPELLING = {"unk": "unknown", "sep": "seperator", "pad": "padding"}


def lay_out(checkpoint: Checkpoint, plan: Plan, max_shard_bytes: int | None) -> tuple[OutputFile, ...]:
    """The GGUF files of a plan, one or several, headers done.

    Raises:
        InputError: GGUF cannot express the model, or its tokenizer is unusable.
    """
    identity = identify(checkpoint.name)
    keys = Keys()
    _describe(keys, checkpoint, plan, identity)
    _tokenize(keys, checkpoint.tokenizer, checkpoint.family.vocabulary)
    shards = split(plan.tensors, max_shard_bytes)
    file_names = shard_names(f"{identity.stem}-{plan.label}{{}}.gguf", len(shards))
    files = []
    for number, (name, tensors) in enumerate(zip(file_names, shards, strict=True)):
        section = keys if number == 0 else Keys()
        if len(shards) > 1:
            section.number("split.no", number, U16)
            section.number("split.count", len(shards), U16)
            section.number("split.tensors.count", len(plan.tensors), I32)
        files.append(_file(name, section, tensors))
    if plan.mmproj is not None:
        files.append(_projector(checkpoint, plan, identity, plan.mmproj))
    return tuple(files)


def _projector(checkpoint: Checkpoint, plan: Plan, identity: Identity, kind: str) -> OutputFile:
    """The mmproj file: vision tower and projector."""
    assert checkpoint.vision_config is not None
    keys = Keys()
    keys.text("general.architecture", "clip")
    keys.text("general.type", "mmproj")
    _name(keys, checkpoint, identity)
    for key, value in checkpoint.family.gguf.from_vision(
        checkpoint.vision_config, checkpoint.config.hidden_size
    ).items():
        keys.scalar(key, value)
    file_type = ENCODINGS[kind].file_type
    assert file_type is not None
    keys.number("general.file_type", file_type, U32)
    keys.number("general.quantization_version", _QUANTIZATION_VERSION, U32)
    return _file(f"mmproj-{identity.stem}-{kind.upper()}.gguf", keys, plan.extra)


def _file(name: str, keys: Keys, tensors: Sequence[PlannedTensor]) -> OutputFile:
    """One file: header, keys, tensor infos, padding, and where the tensors lie."""
    head, offsets = header(keys, [Info(t.name, t.shape, _ggml_type(t), t.nbytes) for t in tensors])
    at = sum(aligned(tensor.nbytes) for tensor in tensors)
    placements = tuple(
        Placement(tensor, (Piece(len(head) + offset, tensor.encoding.row_bytes(tensor.source.columns)),))
        for tensor, offset in zip(tensors, offsets, strict=True)
    )
    return OutputFile(name, len(head) + at, head, placements)


def _ggml_type(planned: PlannedTensor) -> int:
    """Number of a tensor's type; the plan has only types that GGUF holds."""
    number = planned.encoding.ggml_type
    assert number is not None
    return number


def pack(planned: PlannedTensor, values: Values) -> tuple[U8, ...]:
    """A tensor is one piece: its ggml blocks."""
    packer = codec(planned.encoding).pack
    assert packer is not None
    return (packer(values),)


def arrays(folder: Path) -> dict[str, StoredArray]:
    """All tensors of the GGUF files in a folder by name.

    Raises:
        InputError: a header cannot be read.
    """
    files = [gguf_reader.parse(FileSpan.of(path)) for path in sorted(folder.glob("*.gguf"))]
    return {
        info.name: StoredArray(info.type.name, info.shape, file.span, info.offset, info.nbytes)
        for file in files
        for info in file.tensors
    }


def _describe(keys: Keys, checkpoint: Checkpoint, plan: Plan, identity: Identity) -> None:
    """Everything but the tokenizer."""
    architecture = checkpoint.family.gguf.ARCHITECTURE
    keys.text("general.architecture", architecture)
    keys.text("general.type", "model")
    for name, (key, kind) in _SAMPLING.items():
        value = checkpoint.generation.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            keys.number(f"general.sampling.{key}", int(value) if kind == I32 else value, kind)
    _name(keys, checkpoint, identity)
    for key, value in checkpoint.family.gguf.from_config(checkpoint.config).items():
        keys.scalar(f"{architecture}.{key}", value)
    if plan.file_type is not None:
        keys.number("general.file_type", plan.file_type, U32)
    keys.number("general.quantization_version", _QUANTIZATION_VERSION, U32)


def _name(keys: Keys, checkpoint: Checkpoint, identity: Identity) -> None:
    """Name, size and licence of the model."""
    keys.text("general.name", identity.title)
    if identity.finetune:
        keys.text("general.finetune", identity.finetune)
    if identity.basename:
        keys.text("general.basename", identity.basename)
    keys.text("general.size_label", size_label(checkpoint.family, checkpoint.config))
    _credit(keys, checkpoint.card, identity, checkpoint.family.license)


def _credit(keys: Keys, card: Mapping[str, Any], identity: Identity, usual: License) -> None:
    """License, base models, tags and languages, from the model card where there is one."""
    license_name = ",".join(_texts(card.get("license"))) or usual.name
    keys.text("general.license", license_name)
    for field in ("license_name", "license_link"):
        if isinstance(card.get(field), str):
            keys.text("general." + field.replace("_", "."), card[field])
    if license_name == usual.name and "license_link" not in card:
        keys.text("general.license.link", usual.link)
    bases = _texts(card.get("base_model")) or ([identity.official] if identity.official else [])
    repos = [base for base in bases if base.count("/") == 1]
    if repos:
        keys.number("general.base_model.count", len(repos), U32)
    for number, repo in enumerate(repos):
        organization, _, name = repo.partition("/")
        keys.text(f"general.base_model.{number}.name", title(name))
        keys.text(f"general.base_model.{number}.organization", title(organization))
        keys.text(f"general.base_model.{number}.repo_url", f"https://huggingface.co/{repo}")
    tags = _texts(card.get("tags")) + _texts(card.get("pipeline_tag"))
    if tags:
        keys.texts("general.tags", tags)
    languages = _texts(card.get("language"))
    if languages:
        keys.texts("general.languages", languages)


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _tokenize(keys: Keys, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """The tokenizer's keys."""
    keys.text("tokenizer.ggml.model", vocabulary.GGUF_MODEL)
    keys.text("tokenizer.ggml.pre", vocabulary.GGUF_PRE)
    pieces = list(tokenizer.pieces)
    for at in np.nonzero(tokenizer.types == USER_DEFINED)[0].tolist():
        pieces[at] = pieces[at].replace(SPACE, " ")
    keys.texts("tokenizer.ggml.tokens", pieces)
    keys.array("tokenizer.ggml.scores", tokenizer.scores.astype("<f4"), F32)
    keys.array("tokenizer.ggml.token_type", tokenizer.types.astype("<i4"), I32)
    for role, at in tokenizer.special.items():
        keys.number(f"tokenizer.ggml.{_SPELLING.get(role, role)}_token_id", at, U32)
    for role, adds in tokenizer.add.items():
        keys.flag(f"tokenizer.ggml.add_{role}_token", adds)
    keys.flag("tokenizer.ggml.add_space_prefix", False)
    for name, text in (tokenizer.named_templates or {}).items():
        keys.text(f"tokenizer.chat_template.{name}", text)
    if tokenizer.named_templates:
        keys.texts("tokenizer.chat_templates", sorted(tokenizer.named_templates))
    if tokenizer.chat_template is not None:
        keys.text("tokenizer.chat_template", tokenizer.chat_template)
