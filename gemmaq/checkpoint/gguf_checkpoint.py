"""Open a GGUF file with the names, norms, config and tokenizer of the Hugging Face folder that it came from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from gemmaq.checkpoint import Checkpoint, Tensor, gguf_tokenizer, plain
from gemmaq.checkpoint.assemble import idle_tensors, strangers, text_tensors
from gemmaq.checkpoint.embedder import of_gguf
from gemmaq.checkpoint.tokenizer import TokenizerFiles
from gemmaq.encodings import Encoding
from gemmaq.encodings.foreign import by_ggml_type
from gemmaq.errors import InputError, UnsupportedModelError
from gemmaq.files import gguf_reader
from gemmaq.files.gguf_reader import GgufFile
from gemmaq.models import families
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family
from gemmaq.models.roles import Role

_ADD_BOS = "tokenizer.ggml.add_bos_token"


def open_gguf(files: Sequence[GgufFile], name: str, location: str) -> Checkpoint:
    """The text model of a GGUF file, or of the shards of a split one.

    Args:
        files: Headers of the files, in the order of the shards.
        name: Name of the model.
        location: SOURCE as the user typed it.

    Raises:
        InputError: A header is unusable, or the file holds no text model of a known family.
    """
    keys, origin = files[0].keys, files[0].span
    expected = keys.get("split.count", 1)
    if expected != len(files):
        raise InputError(f"is one of {expected} shards, {len(files)} were given", path=origin)
    for number, file in enumerate(files):
        if file.keys.get("split.no", 0) != number:
            raise InputError(f"is shard {file.keys.get('split.no')}, its name says {number}", path=file.span)
    infos = [(file, info) for file in files for info in file.tensors]
    if keys.get("general.architecture") == "clip":
        raise InputError("is an mmproj file, not a model", "name the text model's GGUF", path=origin)
    if keys.get("general.type") == "imatrix":
        raise InputError(
            "is an importance matrix, not a model", "gemmaq imatrix --show-statistics FILE shows it", path=origin
        )
    if keys.get("general.type") == "adapter" or any(key.startswith("adapter.") for key in keys):
        raise InputError(
            "is an adapter (LoRA), not a model",
            "name the GGUF of the model that it was trained on; llama-server applies the adapter itself: --lora FILE",
            path=origin,
        )
    try:
        family = families.of_gguf(keys)
    except UnsupportedModelError as error:
        error.tensors = tuple((info.type.name.lower(), math.prod(info.shape), info.nbytes) for _, info in infos)
        raise
    config = family.gguf.to_config(keys, {info.name: info.shape for _, info in infos})
    generated = family.gguf.generated(config)
    inside = family.towers.built_in(keys, [info.name for _, info in infos])[1] if family.towers is not None else {}
    named = {info.name: family.names.from_gguf(info.name) for _, info in infos if info.name not in generated}
    tensors = [_tensor(file, info, ours, family) for file, info in infos if (ours := named.get(info.name)) is not None]
    heads = of_gguf(keys, tensors, family)
    tensors = [tensor for tensor in tensors if tensor.name not in heads.heads]
    ordered, notes = text_tensors(tensors, family, config, origin=str(origin))
    notes += gguf_tokenizer.notes(keys, family)
    notes += strangers([name for name, ours in named.items() if ours is None and name not in inside], family)
    if family.vocabulary.ALWAYS_BOS and keys.get(_ADD_BOS) is False:
        notes += (f"{_ADD_BOS} is false, but llama.cpp begins every text of {family.title} with BOS: taken as true",)
    return Checkpoint(
        name=name,
        location=location,
        format="gguf",
        family=family,
        config=config,
        tensors=ordered,
        idle=idle_tensors(tensors, ordered, family, config, origin=str(origin)),
        embedder=heads if family.embeds else None,
        generation={} if family.embeds else _generation(keys, family, config),
        card=_card(keys),
        tokenizer_files=TokenizerFiles(partial(gguf_tokenizer.read, keys, family, str(origin))),
        notes=notes,
    )


def _tensor(file: GgufFile, info: gguf_reader.TensorInfo, name: str, family: Family) -> Tensor:
    shift = -family.gguf.NORM_SHIFT if family.names.place(name).role == Role.NORM else 0.0
    kind, span = encoding_of(file, info), file.span
    return plain(name, info.shape, kind, span=span, offset=info.offset, shift=shift, stored_name=info.name)


def encoding_of(file: GgufFile, info: gguf_reader.TensorInfo) -> Encoding:
    """Encoding of a tensor in a GGUF file.

    Raises:
        InputError: It is of a type that gemmaq cannot read.
    """
    encoding = by_ggml_type(info.type.number)
    if encoding is None:
        raise InputError(f"has the type {info.type.name}, which cannot be read", path=file.span, tensor=info.name)
    return encoding


def _generation(keys: Mapping[str, Any], family: Family, config: TextConfig) -> dict[str, Any]:
    """Content of generation_config.json, from the sampling keys.

    GGUF names one token that ends a text; llama.cpp finds the token that ends a turn by itself, transformers does not.
    """
    pieces = keys.get("tokenizer.ggml.tokens")
    ends = [config.eos_token_ids[0]]
    if family.chat is not None and isinstance(pieces, list) and family.chat.stop in pieces:
        ends.append(pieces.index(family.chat.stop))
    result: dict[str, Any] = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": ends if len(set(ends)) > 1 else ends[0],
        "pad_token_id": config.pad_token_id,
    }
    names = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
    for key, name in names.items():
        value = keys.get(f"general.sampling.{key}")
        if value is not None:
            result[name] = float(f"{value:.7g}") if isinstance(value, float) else value
    suppressed = keys.get("tokenizer.ggml.suppress_tokens")
    if isinstance(suppressed, np.ndarray) and suppressed.dtype.kind in "iu":
        result["suppress_tokens"] = suppressed.tolist()
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
