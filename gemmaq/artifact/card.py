"""The model card of an artifact: where it comes from, what is in it, how to run it, what memory it takes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.files.names import is_mmproj, stem
from gemmaq.models.config import TextConfig
from gemmaq.models.family import Family
from gemmaq.models.identity import identify
from gemmaq.models.roles import Role
from gemmaq.planning.plan import Plan

NAME = "README.md"

_LIBRARIES = {"gguf": "gguf", "mlx": "mlx", "compressed-tensors": "transformers", "safetensors": "transformers"}
_ENGINES = {"gguf": "llama.cpp", "mlx": "mlx", "compressed-tensors": "vllm", "safetensors": "vllm"}
_CONTEXTS = (4096, 8192, 32768, 131072)
_GB = 1e9
_SIGNED = re.compile(r"<!-- written by gemmaq, sha256 of the text above: ([0-9a-f]{64}) -->\n")

File = tuple[str, int, str]
"""Path, bytes, SHA-256 in hex."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a card says of a model.

    Attributes:
        name: of the model.
        format: `gguf`, `mlx`, `compressed-tensors` or `safetensors`.
        family: The model's family.
        config: of the text model.
        card: metadata of the source's card.
        repo: of the source, None if it is not known.
        body: name of the encoding of the layers' matrices.
        kinds: encoding -> how many tensors have it.
        parameters: weights of the text model.
        weights: bytes of its tensors.
        embedding: bytes of the embedding among them.
        vision: bytes of the vision side.
        files: beside each other in the model's folder.
    """

    name: str
    format: str
    family: Family
    config: TextConfig
    card: Mapping[str, Any]
    repo: str | None
    body: str
    kinds: Mapping[str, int]
    parameters: int
    weights: int
    embedding: int
    vision: int
    files: tuple[str, ...]


def of_checkpoint(checkpoint: Checkpoint, folder: Path, name: str | None = None, repo: str | None = None) -> Model:
    """Of a model that is there.

    Args:
        checkpoint: its headers.
        folder: it lies in.
        name: of the model, if the folder's is not to be trusted.
        repo: of its source, if that is known.
    """
    tensors = checkpoint.tensors.values()
    return Model(
        name or checkpoint.name,
        checkpoint.format,
        checkpoint.family,
        checkpoint.config,
        checkpoint.card,
        repo,
        checkpoint.body.name,
        Counter(tensor.encoding.name for tensor in tensors),
        checkpoint.parameters,
        sum(tensor.nbytes for tensor in tensors),
        checkpoint.embedding.nbytes,
        checkpoint.vision_bytes,
        tuple(sorted(path.name for path in folder.iterdir() if path.is_file())),
    )


def of_plan(plan: Plan, source: Checkpoint, repo: str | None, files: Sequence[str]) -> Model:
    """The model that a plan makes of a source.

    Args:
        plan: carried out.
        source: the checkpoint it was made for.
        repo: repository of the source, None if unknown.
        files: names of the files in the model's folder.
    """
    quantized = any(not tensor.encoding.is_float for tensor in plan.tensors)
    return Model(
        source.name,
        "compressed-tensors" if quantized and plan.format == "safetensors" else plan.format,
        source.family,
        source.config,
        source.card,
        repo,
        plan.body.name,
        plan.counts,
        plan.elements,
        plan.tensor_bytes,
        sum(tensor.nbytes for tensor in plan.tensors if tensor.source.place.role == Role.EMBEDDING),
        sum(tensor.nbytes for tensor in plan.beside if tensor.source.name in source.vision),
        tuple(files),
    )


def text(repo: str | None, found: Sequence[Model], files: Sequence[File]) -> str:
    """The card, front matter and all, its last line the digest of the others.

    Args:
        repo: where it is published, None for lines that run the files where they are.
        found: the models of an artifact.
        files: of it.
    """
    import yaml

    identity = identify(found[0].name)
    parts = [
        f"# {identity.title}",
        f"{found[0].family.title}, quantized by gemmaq for {_runtimes(found)}.",
        "## Files",
        _table(("file", "size", "sha256"), [_row(*file) for file in files]),
        *(part for model in found for part in _model(repo, model)),
        "## License",
        f"{found[0].family.license.notice}.",
    ]
    front = yaml.safe_dump(_front(found, identity.official), sort_keys=False, allow_unicode=True)
    card = f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n\n"
    return f"{card}<!-- written by gemmaq, sha256 of the text above: {_digest(card)} -->\n"


def is_ours(card: str) -> bool:
    """Whether gemmaq wrote a card and nobody has changed it since."""
    lines = card.splitlines(keepends=True)
    found = _SIGNED.fullmatch(lines[-1]) if lines else None
    return found is not None and found[1] == _digest("".join(lines[:-1]))


def _digest(card: str) -> str:
    return hashlib.sha256(card.encode()).hexdigest()


def _front(found: Sequence[Model], official: str | None) -> dict[str, Any]:
    first = found[0]
    usual = first.family.license
    front: dict[str, Any] = {"license": first.card.get("license") or usual.name}
    if front["license"] == usual.name:
        front["license_link"] = usual.link
    front |= {key: first.card[key] for key in ("license_name", "license_link", "language") if key in first.card}
    known = [first.repo] if first.repo else []
    bases = known or first.card.get("base_model") or ([official] if official else [])
    if bases:
        front["base_model"] = bases if isinstance(bases, str) else list(bases)
        front["base_model_relation"] = "quantized"
    front["library_name"] = _LIBRARIES[first.format]
    front["pipeline_tag"] = "image-text-to-text" if first.vision else "text-generation"
    kinds = [_LIBRARIES[model.format] for model in found]
    front["tags"] = list(dict.fromkeys([first.family.name, "gemma", *kinds, *(model.body for model in found)]))
    front["quantized_by"] = "gemmaq"
    return front


def _runtimes(found: Sequence[Model]) -> str:
    names = {
        "gguf": "llama.cpp, Ollama and LM Studio",
        "mlx": "MLX",
        "compressed-tensors": "transformers and vLLM",
        "safetensors": "transformers and vLLM",
    }
    return "; ".join(names[model.format] for model in found)


def _model(repo: str | None, model: Model) -> list[str]:
    title = {"gguf": "GGUF", "mlx": "MLX"}.get(model.format, "safetensors")
    kinds = ", ".join(f"{count} {name.upper()}" for name, count in Counter(model.kinds).most_common())
    bits = 8 * model.weights / model.parameters
    size = f"{model.parameters:,} parameters in {model.weights:,} bytes, {bits:.2f} bits each: {kinds}."
    if model.vision:
        size += f" The vision side takes {model.vision:,} bytes more."
    commands = _RUNS[model.format](model) if repo is None else _published(repo, model)
    return [f"## {title}", size, "```sh\n" + "\n".join(commands) + "\n```", _memory(model)]


def _published(repo: str, model: Model) -> list[str]:
    """How to run it from the Hub, a line for each runtime."""
    if model.format == "gguf":
        kind = model.body.upper()
        return [f"llama-server -hf {repo}:{kind}", f"ollama run hf.co/{repo}:{kind}"]
    if model.format == "mlx":
        return [f"mlx_lm.chat --model {repo}", *([f"mlx_vlm.chat --model {repo}"] if model.vision else [])]
    return [f"vllm serve {repo}"]


def _run_gguf(model: Model) -> list[str]:
    files = sorted(name for name in model.files if name.endswith(".gguf"))
    seen = [name for name in files if is_mmproj(name)]
    first = next(name for name in files if name not in seen)
    lines = [f"llama-server -m {first}" + (f" --mmproj {seen[0]}" if seen else "")]
    if "Modelfile" in model.files:
        lines.append(f"ollama create {stem(first).lower()} -f Modelfile")
    return lines


def _run_mlx(model: Model) -> list[str]:
    return ["mlx_lm.chat --model .", *(["mlx_vlm.chat --model ."] if model.vision else [])]


def _run_vllm(model: Model) -> list[str]:
    return ["vllm serve ."]


_RUNS = {"gguf": _run_gguf, "mlx": _run_mlx, "compressed-tensors": _run_vllm, "safetensors": _run_vllm}
"""How to run it where it lies: in the folder of its files, a line for each runtime."""


def _memory(model: Model) -> str:
    """Memory by context, in the engine that runs this container."""
    from gemmaq import vram

    engine = vram.find(_ENGINES[model.format])
    seen = bool(model.vision) and engine.sees is not None
    config: Any = model.config
    built = vram.Model(model.name, config, model.weights, model.embedding, model.vision)
    kinds = (engine.kv_default, engine.kv_default)
    rows = []
    for context in (c for c in _CONTEXTS if c <= model.config.max_position_embeddings):
        found = vram.estimate(engine, built, vram.Load(context, kinds, vision=seen))
        parts = (found.weights + found.vision, found.kv, found.compute, found.overhead, found.total)
        rows.append((f"{context:,}", *(f"{part / _GB:.2f}" for part in parts)))
    title = f"Memory in {engine.title}, GB, {engine.kv_default} cache, estimated by `gemmaq estimate-vram`:"
    return title + "\n\n" + _table(("context", "weights", "KV cache", "compute", "overhead", "total"), rows)


def _row(path: str, size: int, sha256: str) -> tuple[str, str, str]:
    return f"`{path}`", f"{size / _GB:.2f} GB" if size > 1e8 else f"{size:,} B", sha256[:16]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
