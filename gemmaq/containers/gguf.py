"""The GGUF container.

Source of the layout: ggml's docs/gguf.md; keys as llama.cpp's converter and llama-quantize write them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gemmaq.checkpoint import Checkpoint, Embedder
from gemmaq.checkpoint.chat_templates import spelled
from gemmaq.checkpoint.tokenizer import Tokenizer
from gemmaq.containers.layout import OutputFile, Piece, Placement, StoredArray, shard_names, split
from gemmaq.encodings import ENCODINGS, Encoding, Fused, codec
from gemmaq.files import gguf_reader
from gemmaq.files.gguf_writer import F32, I32, U16, U32, Info, Keys, aligned, header
from gemmaq.files.names import DRAFTER, parts
from gemmaq.files.sentencepiece import SPACE, USER_DEFINED
from gemmaq.files.span import FileSpan
from gemmaq.models import sentence_transformers
from gemmaq.models.families import size_label
from gemmaq.models.family import License, Vocabulary
from gemmaq.models.identity import Identity, identify, title
from gemmaq.models.roles import Role
from gemmaq.planning.drafter import PREFIX
from gemmaq.planning.format import Constant, Format, PieceSpec
from gemmaq.planning.plan import Plan, PlannedTensor

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
    projection=ENCODINGS["f16"],
    idle=True,
)

_QUANTIZATION_VERSION = 2
_SAMPLING = {
    "top_k": ("top_k", I32), "top_p": ("top_p", F32), "min_p": ("min_p", F32), "temperature": ("temp", F32),
}  # fmt: skip
"""generation_config.json -> key under general.sampling and its type."""
_BEYOND = {I32: 1 << 31, F32: 1e38}
"""Settings of this size make no sense, and a key does not hold all of them: they are left out."""
_SPELLING = {"unk": "unknown", "sep": "seperator", "pad": "padding"}


def lay_out(checkpoint: Checkpoint, plan: Plan, max_shard_bytes: int | None) -> tuple[OutputFile, ...]:
    """The GGUF files of a plan, one or several, headers done.

    Raises:
        InputError: GGUF cannot express the model, or its tokenizer is unusable.
    """
    identity = identify(checkpoint.name)
    stem = f"{DRAFTER}{identity.target}" if checkpoint.family.drafts else identity.stem
    files = _model(checkpoint, plan, stem, max_shard_bytes)
    if plan.mmproj is not None:
        files.append(_projector(checkpoint, plan, identity, plan.mmproj))
    if plan.drafter is not None and checkpoint.drafter is not None:
        files += _model(checkpoint.drafter, plan.drafter, f"{DRAFTER}{stem}", None)
    return tuple(files)


def _model(checkpoint: Checkpoint, plan: Plan, stem: str, max_shard_bytes: int | None) -> list[OutputFile]:
    """The files of a model, one or several, named after a stem and the type."""
    identity = identify(checkpoint.name)
    keys = Keys()
    _describe(keys, checkpoint, plan, identity)
    _tokenize(keys, checkpoint.tokenizer, checkpoint.family.vocabulary)
    suppressed, size = checkpoint.generation.get("suppress_tokens"), checkpoint.config.vocab_size
    if isinstance(suppressed, list) and suppressed and all(type(at) is int and 0 <= at < size for at in suppressed):
        keys.scalar("tokenizer.ggml.suppress_tokens", suppressed)
    tensors, is_quantized = plan.tensors, not plan.body.is_float
    if is_quantized:
        tensors = tuple(sorted(tensors, key=lambda tensor: _rank(tensor.name)))
        _number_types(keys, plan.file_type)
    if is_quantized or plan.matrix is not None:
        _credit_quantization(keys, plan)
    shards = split(tensors, max_shard_bytes)
    file_names = shard_names(f"{stem}-{plan.label}", ".gguf", len(shards))
    files = []
    for number, (name, held) in enumerate(zip(file_names, shards, strict=True)):
        section = keys if number == 0 else Keys()
        if len(shards) > 1:
            section.number("split.no", number, U16)
            section.number("split.count", len(shards), U16)
            section.number("split.tensors.count", len(plan.tensors) + len(plan.generated), I32)
        files.append(_file(name, section, held, plan.generated if number == 0 else (), ranked=is_quantized))
    return files


def _projector(checkpoint: Checkpoint, plan: Plan, identity: Identity, kind: str) -> OutputFile:
    """The mmproj file: the towers and their projectors."""
    assert checkpoint.towers_config is not None and checkpoint.family.towers is not None
    keys = Keys()
    keys.text("general.architecture", "clip")
    keys.text("general.type", "mmproj")
    _name(keys, checkpoint, identity)
    described = checkpoint.family.towers.to_keys(checkpoint.towers_config, checkpoint.config.hidden_size)
    for key, value in described.items():
        keys.scalar(key, value)
    _number_types(keys, ENCODINGS[kind].file_type, version_last=True)
    return _file(f"mmproj-{identity.stem}-{kind.upper()}.gguf", keys, plan.extra)


def _file(
    name: str,
    keys: Keys,
    tensors: Sequence[PlannedTensor],
    generated: Sequence[Constant] = (),
    *,
    ranked: bool = False,
) -> OutputFile:
    """One file: header, keys and tensor infos, generated tensors, padding, and where the other tensors lie.

    Tensors come as they are, generated ones ahead of them, or all of them `ranked` in the order of llama-quantize.
    """
    everything: list[Constant | PlannedTensor] = [*generated, *tensors]
    if ranked:
        everything.sort(key=lambda tensor: _rank(tensor.name))
    infos = [_info(tensor) for tensor in everything]
    head, offsets = header(keys, infos)
    placements, fixed = [], []
    for tensor, offset in zip(everything, offsets, strict=True):
        at = len(head) + offset
        if isinstance(tensor, Constant):
            fixed.append((at, tensor.data.ljust(aligned(len(tensor.data)), b"\0")))
        else:
            placements.append(Placement(tensor, (Piece(at, tensor.encoding.row_bytes(tensor.source.columns)),)))
    size = len(head) + sum(aligned(info.nbytes) for info in infos)
    return OutputFile(name, size, head, tuple(placements), tuple(fixed))


def _rank(name: str) -> tuple[int, str]:
    """Place of a tensor in files of llama-quantize: by layer, those outside the layers first, then by name."""
    name = name.removeprefix(PREFIX)
    block, _, rest = name.partition(".")
    layer = rest.partition(".")[0]
    return (int(layer) if block == "blk" and layer.isdecimal() else -1), name


def _info(tensor: Constant | PlannedTensor) -> Info:
    """A tensor for the header."""
    name = tensor.name.removeprefix(PREFIX)
    if isinstance(tensor, Constant):
        return Info(name, tensor.shape, ENCODINGS[tensor.dtype.lower()].ggml_type or 0, len(tensor.data))
    return Info(name, tensor.shape, _ggml_type(tensor), tensor.nbytes)


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


def fused(encoding: Encoding) -> Fused | None:
    """The loop from BF16 weights to ggml blocks."""
    return codec(encoding).fused


def arrays(paths: Sequence[Path]) -> dict[str, StoredArray]:
    """All tensors of the GGUF files of a model by name, those of a drafter beside it with a prefix.

    Raises:
        InputError: a header cannot be read.
    """
    drafter = parts(path.name for path in paths).drafter
    return {
        (PREFIX if path.name == drafter else "") + info.name: StoredArray(
            info.type.name, info.shape, file.span, info.offset, info.nbytes
        )
        for path in paths
        for file in (gguf_reader.parse(FileSpan.of(path)),)
        for info in file.tensors
    }


def _describe(keys: Keys, checkpoint: Checkpoint, plan: Plan, identity: Identity) -> None:
    """Everything but the tokenizer."""
    architecture = checkpoint.family.gguf.ARCHITECTURE
    keys.text("general.architecture", architecture)
    keys.text("general.type", "model")
    for name, (key, kind) in _SAMPLING.items():
        value = checkpoint.generation.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _BEYOND[kind]:
            keys.number(f"general.sampling.{key}", int(value) if kind == I32 else value, kind)
    _name(keys, checkpoint, identity)
    for key, value in checkpoint.family.gguf.from_config(checkpoint.config).items():
        keys.scalar(f"{architecture}.{key}", value)
    for key, value in _modules(checkpoint.embedder, plan).items():
        keys.number(f"{architecture}.{key}", value, U32)
    if plan.body.is_float:
        _number_types(keys, plan.file_type, version_last=True)


def _number_types(keys: Keys, file_type: int | None, *, version_last: bool = False) -> None:
    """The number of the file's type and the version of the types: llama-quantize ends with these, version first."""
    numbers = {"quantization_version": _QUANTIZATION_VERSION, "file_type": file_type}
    for key in reversed(numbers) if version_last else numbers:
        if (number := numbers[key]) is not None:
            keys.number(f"general.{key}", number, U32)


def _credit_quantization(keys: Keys, plan: Plan) -> None:
    """Who quantized, and with which importance matrix: in this order behind all else, as llama-quantize has them."""
    keys.text("general.quantized_by", "gemmaq")
    if plan.matrix is None:
        return
    keys.text("quantize.imatrix.file", plan.matrix.file)
    if plan.matrix.datasets:
        keys.text("quantize.imatrix.dataset", ", ".join(plan.matrix.datasets))
    keys.number("quantize.imatrix.entries_count", plan.matrix.entries, U32)
    if plan.matrix.chunks:
        keys.number("quantize.imatrix.chunks_count", plan.matrix.chunks, U32)


def _modules(embedder: Embedder | None, plan: Plan) -> dict[str, int]:
    """Keys about the modules behind a model that embeds: width of its dense heads, kind of pooling."""
    result: dict[str, int] = {}
    for tensor in plan.tensors:
        if tensor.source.place.role is Role.DENSE:
            result |= sentence_transformers.head_keys(tensor.name, tensor.shape)
    if embedder is not None and embedder.pooling is not None:
        result["pooling_type"] = sentence_transformers.POOLING[embedder.pooling]
    return result


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
    if vocabulary.GGUF_PRE is not None:
        keys.text("tokenizer.ggml.pre", vocabulary.GGUF_PRE)
    pieces = list(tokenizer.pieces)
    if tokenizer.merges is None:
        for at in np.nonzero(tokenizer.types == USER_DEFINED)[0].tolist():
            pieces[at] = pieces[at].replace(SPACE, " ")
    keys.texts("tokenizer.ggml.tokens", pieces)
    keys.array("tokenizer.ggml.scores", tokenizer.scores.astype("<f4"), F32)
    keys.array("tokenizer.ggml.token_type", tokenizer.types.astype("<i4"), I32)
    if tokenizer.merges is not None:
        keys.texts("tokenizer.ggml.merges", tokenizer.merges)
    for role, at in tokenizer.special.items():
        keys.number(f"tokenizer.ggml.{_SPELLING.get(role, role)}_token_id", at, U32)
    for role, adds in tokenizer.add.items():
        keys.flag(f"tokenizer.ggml.add_{role}_token", adds)
    keys.flag("tokenizer.ggml.add_space_prefix", False)
    named = spelled(tokenizer.named_templates or {})
    for name, text in named.items():
        keys.text(f"tokenizer.chat_template.{name}", text)
    if named:
        keys.texts("tokenizer.chat_templates", sorted(named))
    if tokenizer.chat_template is not None:
        keys.text("tokenizer.chat_template", tokenizer.chat_template)
