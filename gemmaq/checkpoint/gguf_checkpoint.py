"""Open a GGUF file with the names, norms, config and tokenizer of the Hugging Face folder that it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from gemmaq.checkpoint import Checkpoint, Tensor, plain
from gemmaq.checkpoint.assemble import text_tensors
from gemmaq.checkpoint.tokenizer import Tokenizer, TokenizerFiles
from gemmaq.encodings import Encoding
from gemmaq.encodings.foreign import by_ggml_type
from gemmaq.errors import InputError
from gemmaq.files import gguf_reader
from gemmaq.files.gguf_reader import GgufFile
from gemmaq.files.sentencepiece import SPACE, USER_DEFINED
from gemmaq.files.span import FileSpan
from gemmaq.models import families
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family
from gemmaq.models.roles import VISION, Role
from gemmaq.models.vision_config import VisionConfig

_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "sep": "seperator", "pad": "padding", "mask": "mask"}
"""Role of a token -> its spelling in `tokenizer.ggml.<role>_token_id` (`seperator` is GGUF's own)."""


def open_gguf(spans: Sequence[FileSpan], name: str, location: str, projectors: Sequence[FileSpan] = ()) -> Checkpoint:
    """Read the headers of a GGUF file, or of the shards of a split one.

    Args:
        spans: The files, in the order of the shards.
        name: Name of the model.
        location: SOURCE as the user typed it.
        projectors: mmproj files in the same folder; the first that belongs to the model is taken.

    Raises:
        InputError: A header is unusable, or the file holds no text model of a known family.
    """
    files = [gguf_reader.parse(span) for span in spans]
    keys = files[0].keys
    expected = keys.get("split.count", 1)
    if expected != len(files):
        raise InputError(f"is one of {expected} shards, {len(files)} were given", path=spans[0])
    for number, file in enumerate(files):
        if file.keys.get("split.no", 0) != number:
            raise InputError(f"is shard {file.keys.get('split.no')}, its name says {number}", path=file.span)
    infos = [(file, info) for file in files for info in file.tensors]
    if keys.get("general.architecture") == "clip":
        raise InputError("is a vision projector (mmproj), not a model", "name the text model's GGUF", path=spans[0])
    family = families.of_gguf(keys)
    embedding = family.names.to_gguf(family.names.EMBEDDING)
    rows = next((info.shape[0] for _, info in infos if info.name == embedding), 1)
    config = family.gguf.to_config(keys, rows)
    tensors = [_tensor(file, info, family) for file, info in infos]
    ordered, notes = text_tensors(tensors, family, config, origin=str(spans[0]))
    vision: dict[str, Tensor] = {}
    vision_config = None
    for projector in projectors:
        vision, vision_config, oddities = _vision(projector, family, config)
        notes += oddities
        if vision:
            break
    return Checkpoint(
        name=name,
        location=location,
        format="gguf",
        family=family,
        config=config,
        tensors=ordered,
        vision=vision,
        vision_config=vision_config,
        generation=_generation(keys, config),
        card=_card(keys),
        tokenizer_files=TokenizerFiles(partial(_tokenizer, keys, family, str(spans[0]))),
        notes=notes,
    )


def _vision(
    span: FileSpan, family: Family, config: TextConfig
) -> tuple[dict[str, Tensor], VisionConfig | None, tuple[str, ...]]:
    """Tensors and dimensions of an mmproj file (none if it does not fit the model), and notes."""
    try:
        file = gguf_reader.parse(span)
        width = file.keys.get("clip.vision.projection_dim")
        if file.keys.get("general.architecture") != "clip" or width != config.hidden_size:
            return {}, None, (f"{span.name} lies beside the model but is not its vision projector: passed over",)
        vision_config = family.gguf.to_vision(file.keys)
    except InputError as error:
        return {}, None, (f"{error.at(path=span.name).message}: no vision side",)
    tensors = {}
    for info in file.tensors:
        name = family.vision.from_gguf(info.name)
        if name is not None:
            shift = -family.gguf.NORM_SHIFT if family.vision.is_norm(name) else 0.0
            tensors[name] = plain(
                name, info.shape, _encoding(file, info), span=span, offset=info.offset, shift=shift, place=VISION
            )
    return tensors, vision_config, ()


def _tensor(file: GgufFile, info: gguf_reader.TensorInfo, family: Family) -> Tensor:
    name = family.names.from_gguf(info.name)
    is_norm = name is not None and family.names.place(name).role == Role.NORM
    shift = -family.gguf.NORM_SHIFT if is_norm else 0.0
    encoding = _encoding(file, info)
    return plain(name or info.name, info.shape, encoding, span=file.span, offset=info.offset, shift=shift)


def _encoding(file: GgufFile, info: gguf_reader.TensorInfo) -> Encoding:
    encoding = by_ggml_type(info.type.number)
    if encoding is None:
        raise InputError(f"has the type {info.type.name}, which cannot be read", path=file.span, tensor=info.name)
    return encoding


def _generation(keys: Mapping[str, Any], config: TextConfig) -> dict[str, Any]:
    """Content of generation_config.json, from the sampling keys."""
    result: dict[str, Any] = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_ids[0],
        "pad_token_id": config.pad_token_id,
    }
    names = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
    for key, name in names.items():
        value = keys.get(f"general.sampling.{key}")
        if value is not None:
            result[name] = float(f"{value:.7g}") if isinstance(value, float) else value
    return result


def _card(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of the model card, from the general keys."""
    card = {name: keys[f"general.{name}"] for name in ("license", "tags") if f"general.{name}" in keys}
    if "general.languages" in keys:
        card["language"] = keys["general.languages"]
    urls = [
        str(keys.get(f"general.base_model.{n}.repo_url", "")) for n in range(keys.get("general.base_model.count", 0))
    ]
    bases = ["/".join(url.split("/")[-2:]) for url in urls if url.count("/") >= 4]
    return {**card, "base_model": bases} if bases else card


def _tokenizer(keys: Mapping[str, Any], family: Family, origin: str, config: TextConfig) -> Tokenizer:
    """The tokenizer in the keys of a GGUF file.

    Raises:
        InputError: There is none, or it is not SentencePiece-style.
    """

    def key(name: str, default: Any = None) -> Any:
        return keys.get(f"tokenizer.{name}", default)

    pieces, scores, types = key("ggml.tokens"), key("ggml.scores"), key("ggml.token_type")
    if key("ggml.model") != family.vocabulary.GGUF_MODEL or not isinstance(pieces, list) or not pieces:
        raise InputError(f"holds no SentencePiece-style tokenizer (its model is {key('ggml.model')!r})", path=origin)
    if not (
        isinstance(scores, np.ndarray) and isinstance(types, np.ndarray) and len(pieces) == len(scores) == len(types)
    ):
        raise InputError("tokens, scores and token types do not belong together", path=origin)
    spaced = [
        text.replace(" ", SPACE) if kind == USER_DEFINED and text.isspace() else text
        for text, kind in zip(pieces, types.tolist(), strict=True)
    ]
    special = {role: key(f"ggml.{spelling}_token_id") for role, spelling in _ROLES.items()}
    return Tokenizer(
        pieces=spaced,
        scores=scores.astype(np.float32),
        types=types.astype(np.int32),
        special={role: at for role, at in special.items() if isinstance(at, int) and at < len(pieces)},
        add={role: bool(key(f"ggml.add_{role}_token", role == "bos")) for role in ("bos", "eos", "sep")},
        chat_template=key("chat_template"),
        named_templates={name: text for name in key("chat_templates", ()) if (text := key(f"chat_template.{name}"))},
    )
