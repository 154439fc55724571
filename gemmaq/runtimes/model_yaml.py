"""A model.yaml: what LM Studio's catalog shows of a model, with the memory it takes and its sampling.

The format is LM Studio's draft of August 2026 (docs, model.yaml). It holds no weights; what it overrides is shown, not
enforced.
"""

from __future__ import annotations

import re
from typing import Any

from gemmaq import vram
from gemmaq.artifact import modelfile
from gemmaq.runtimes import Model

FILE = "model.yaml"

_CONTEXT = 4096
_ENGINES = {"gguf": "lmstudio", "mlx": "mlx"}


def text(model: Model, name: str) -> str:
    """The file's text.

    The least memory is what `gemmaq estimate-vram` says of LM Studio at a context of 4096 tokens.

    Args:
        model: the artifact.
        name: `publisher/repo`.

    Raises:
        InputError: it has no tokenizer.
    """
    import yaml

    publisher, repo = name.split("/")
    config, kind = model.checkpoint.config, model.container
    family, has_vision = model.checkpoint.family, bool(model.checkpoint.vision)
    model_type = family.configs.MODEL_TYPE if has_vision else family.configs.TEXT_MODEL_TYPE
    size = re.search(r"\d+(\.\d+)?[bm]\b", model.name, re.IGNORECASE)
    about: dict[str, Any] = {
        "domain": "llm",
        "architectures": [family.gguf.ARCHITECTURE if kind == "gguf" else model_type],
        "compatibilityTypes": ["gguf" if kind == "gguf" else "safetensors"],
        "paramsStrings": [size[0].upper()] if size else [],
        "minMemoryUsageBytes": memory(model),
        "contextLengths": [config.max_position_embeddings],
        "vision": has_vision,
    }
    said = modelfile.settings(model.checkpoint).parameters
    fields = [
        {"key": "llm.prediction.temperature", "value": said.get("temperature")},
        {"key": "llm.prediction.topKSampling", "value": said.get("top_k")},
        {"key": "llm.prediction.topPSampling", "value": {"checked": True, "value": said.get("top_p")}},
    ]
    document: dict[str, Any] = {
        "model": name.lower(),
        "base": [{"key": name, "sources": [{"type": "huggingface", "user": publisher, "repo": repo}]}],
        "metadataOverrides": about,
    }
    if "temperature" in said:
        document["config"] = {"operation": {"fields": fields}}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def memory(model: Model) -> int:
    """Bytes that the model takes in LM Studio at a context of 4096 tokens, vision side and all."""
    from gemmaq import containers
    from gemmaq.vram import weights

    engine = vram.find(_ENGINES[model.container])
    built = weights.builds(model.checkpoint, containers.find(engine.container).FORMAT, None, None)[0].model
    context = min(_CONTEXT, model.checkpoint.config.max_position_embeddings)
    load = vram.Load(context, (engine.kv_default, engine.kv_default), vision=bool(built.vision))
    return vram.estimate(engine, built, load).total
