"""model.yaml: the entry of a model in LM Studio's catalog, with the memory that it takes and its sampling settings.

The format is LM Studio's draft of August 2026 (its documentation, model.yaml). The file holds no weights; LM Studio
shows its values but does not enforce them.
"""

from __future__ import annotations

import re
from typing import Any

from gemmaq import vram
from gemmaq.artifact import modelfile
from gemmaq.runtimes.artifact import Artifact

FILE = "model.yaml"

_CONTEXT = 4096
"""Tokens of context that the least memory is given for."""
_ENGINES = {"gguf": "lmstudio", "mlx": "mlx"}
"""Container -> engine of `gemmaq estimate-vram`."""


def text(artifact: Artifact, name: str) -> str:
    """The text of the file.

    Args:
        artifact: The model.
        name: Its name in LM Studio, `publisher/repo`.

    Raises:
        InputError: The model has no tokenizer.
    """
    import yaml

    publisher, repo = name.split("/")
    checkpoint, is_gguf = artifact.checkpoint, artifact.container == "gguf"
    size = re.search(r"\d+(\.\d+)?[bm]\b", artifact.name, re.IGNORECASE)
    metadata: dict[str, Any] = {
        "domain": "llm",
        "architectures": [_architecture(artifact)],
        "compatibilityTypes": ["gguf" if is_gguf else "safetensors"],
        "paramsStrings": [size[0].upper()] if size else [],
        "minMemoryUsageBytes": memory(artifact),
        "contextLengths": [checkpoint.config.max_position_embeddings],
        "vision": bool(checkpoint.vision),
    }
    sampling = modelfile.settings(checkpoint).parameters
    fields = [
        {"key": "llm.prediction.temperature", "value": sampling.get("temperature")},
        {"key": "llm.prediction.topKSampling", "value": sampling.get("top_k")},
        {"key": "llm.prediction.topPSampling", "value": {"checked": True, "value": sampling.get("top_p")}},
    ]
    document: dict[str, Any] = {
        "model": name.lower(),
        "base": [{"key": name, "sources": [{"type": "huggingface", "user": publisher, "repo": repo}]}],
        "metadataOverrides": metadata,
    }
    if "temperature" in sampling:
        document["config"] = {"operation": {"fields": fields}}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _architecture(artifact: Artifact) -> str:
    """The architecture as the container names it."""
    family = artifact.checkpoint.family
    if artifact.container == "gguf":
        return family.gguf.ARCHITECTURE
    return family.configs.MODEL_TYPE if artifact.checkpoint.vision else family.configs.TEXT_MODEL_TYPE


def memory(artifact: Artifact) -> int:
    """Bytes that LM Studio needs for the model at a context of 4096 tokens, vision included."""
    from gemmaq import containers
    from gemmaq.vram import weights

    engine = vram.find(_ENGINES[artifact.container])
    checkpoint = artifact.checkpoint
    model = weights.builds(checkpoint, containers.writer(engine.container).FORMAT, None, None)[0].model
    context = min(_CONTEXT, checkpoint.config.max_position_embeddings)
    vision = bool(model.vision) and engine.supports_vision
    load = vram.Load(context, (engine.kv_default, engine.kv_default), vision=vision)
    return vram.estimate(engine, model, load).total
