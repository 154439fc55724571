"""The model card of an artifact: where it comes from, what is in it, how to run it, what memory it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.gemma.identity import identify
from gemmaq.sources import open_source

if TYPE_CHECKING:
    from gemmaq.release.artifact import Entry

_LIBRARIES = {"gguf": "gguf", "mlx": "mlx", "compressed-tensors": "transformers", "safetensors": "transformers"}
_ENGINES = {"gguf": "llama.cpp", "mlx": "mlx", "compressed-tensors": "vllm", "safetensors": "vllm"}
_CONTEXTS = (4096, 8192, 32768, 131072)
_PARTS = ("gguf", "mlx", "safetensors")
_GB = 1e9


def models(folder: Path) -> list[Checkpoint]:
    """The models of an artifact: in it, or in the folders of its containers.

    Raises:
        InputError: one cannot be read.
    """
    places = [folder] if _has_model(folder) else [folder / part for part in _PARTS if _has_model(folder / part)]
    return [open_source(str(place)) for place in places]


def _has_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or any("mmproj" not in path.name for path in folder.glob("*.gguf"))


def text(repo: str, found: Sequence[Checkpoint], files: Sequence[Entry]) -> str:
    """The card, front matter and all."""
    import yaml

    identity = identify(found[0].name)
    parts = [
        f"# {identity.title}",
        f"Gemma 3, quantized by gemmaq for {_runtimes(found)}.",
        "## Files",
        _table(("file", "size", "sha256"), [_row(file) for file in files]),
        *(part for model in found for part in _model(repo, model)),
        "## License",
        "Gemma is provided under and subject to the Gemma Terms of Use found at https://ai.google.dev/gemma/terms.",
    ]
    front = yaml.safe_dump(_front(found, identity.official), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"


def _front(found: Sequence[Checkpoint], official: str | None) -> dict[str, Any]:
    first = found[0]
    front: dict[str, Any] = {"license": first.card.get("license") or "gemma"}
    if front["license"] == "gemma":
        front["license_link"] = "https://ai.google.dev/gemma/terms"
    bases = first.card.get("base_model") or ([f"google/{official}"] if official else [])
    if bases:
        front["base_model"] = bases if isinstance(bases, str) else list(bases)
        front["base_model_relation"] = "quantized"
    front["library_name"] = _LIBRARIES[first.format]
    front["pipeline_tag"] = "text-generation"
    kinds = [_LIBRARIES[model.format] for model in found]
    front["tags"] = list(dict.fromkeys(["gemma3", "gemma", *kinds, *(model.body.name for model in found)]))
    front["quantized_by"] = "gemmaq"
    return front


def _runtimes(found: Sequence[Checkpoint]) -> str:
    names = {
        "gguf": "llama.cpp, Ollama and LM Studio",
        "mlx": "MLX",
        "compressed-tensors": "transformers and vLLM",
        "safetensors": "transformers and vLLM",
    }
    return "; ".join(names[model.format] for model in found)


def _model(repo: str, model: Checkpoint) -> list[str]:
    counts = Counter(tensor.encoding.label for tensor in model.tensors.values())
    total = sum(tensor.nbytes for tensor in model.tensors.values())
    title = {"gguf": "GGUF", "mlx": "MLX"}.get(model.format, "safetensors")
    kinds = ", ".join(f"{count} {label}" for label, count in counts.most_common())
    return [
        f"## {title}",
        f"{model.parameters:,} parameters in {total:,} bytes, {8 * total / model.parameters:.2f} bits each: {kinds}.",
        "```sh\n" + "\n".join(_commands(repo, model)) + "\n```",
        _memory(model),
    ]


def _commands(repo: str, model: Checkpoint) -> list[str]:
    """How to run it, a line for each runtime."""
    if model.format == "gguf":
        kind = model.body.label
        return [f"llama-server -hf {repo}:{kind}", f"ollama run hf.co/{repo}:{kind}"]
    if model.format == "mlx":
        return [f"mlx_lm.chat --model {repo}"]
    return [f"vllm serve {repo}"]


def _memory(model: Checkpoint) -> str:
    """Memory by context, in the engine that runs this container."""
    from gemmaq import vram
    from gemmaq.gemma import names

    engine = vram.find(_ENGINES[model.format])
    weights = sum(tensor.nbytes for tensor in model.tensors.values())
    built = vram.Model(model.name, model.config, weights, model.tensors[names.EMBEDDING].nbytes)
    kinds = (engine.kv_default, engine.kv_default)
    rows = []
    for context in (c for c in _CONTEXTS if c <= model.config.max_position_embeddings):
        found = vram.estimate(engine, built, vram.Load(context, kinds))
        parts = (found.weights, found.kv, found.compute, found.overhead, found.total)
        rows.append((f"{context:,}", *(f"{part / _GB:.2f}" for part in parts)))
    title = f"Memory in {engine.title}, GB, {engine.kv_default} cache, estimated by `gemmaq estimate-vram`:"
    return title + "\n\n" + _table(("context", "weights", "KV cache", "compute", "overhead", "total"), rows)


def _row(file: Entry) -> tuple[str, str, str]:
    return f"`{file.path}`", f"{file.size / _GB:.2f} GB" if file.size > 1e8 else f"{file.size:,} B", file.sha256[:16]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
