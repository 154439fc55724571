"""model.yaml: the entry of a model in LM Studio's catalog, with the memory that it takes and its sampling settings.

The format is LM Studio's draft of August 2026 (its documentation, and VirtualModelDefinition of lmstudio-js). The file
holds no weights; LM Studio shows its values but does not enforce them. A switch, however, works: it sets a variable of
the chat template. LM Studio has it for models of its catalog alone, so a model that thinks gets an entry there.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from gemmaq import vram
from gemmaq.artifact import modelfile
from gemmaq.runtimes.artifact import Artifact

FILE = "model.yaml"

_CONTEXT = 4096
"""Tokens of context that the least memory is given for."""
_SIZE = re.compile(r"E?\d+(\.\d+)?[BM](-A\d+(\.\d+)?B)?\b", re.IGNORECASE)
"""The size in a model's name: `4b`, `E2B`, `26B-A4B`."""
_ENGINES = {"gguf": "lmstudio", "mlx": "mlx"}
"""Container -> engine of `gemmaq estimate-vram`."""


_SWITCH = {
    "key": "enableThinking",
    "displayName": "Enable Thinking",
    "description": "Whether the model thinks before it answers",
    "type": "boolean",
    "defaultValue": True,
}
"""The switch as models of LM Studio's catalog have it."""


def has_switch(artifact: Artifact) -> bool:
    """Whether the model's chat template lets thoughts be switched on and off.

    Raises:
        InputError: The model has no tokenizer.
    """
    chat = artifact.checkpoint.family.chat
    if chat is None or chat.thinking is None:
        return False
    return chat.thinking in (artifact.checkpoint.tokenizer.chat_template or "")


def model_name(artifact: Artifact, name: str) -> str:
    """Name of the entry: that of the model, in lower case.

    A model with a switch is listed twice, as its files and as its entry, so that the entry needs a name of its own:
    without the container at the end, as in LM Studio's catalog.

    Raises:
        InputError: The model has no tokenizer.
    """
    name = name.lower()
    if not has_switch(artifact):
        return name
    shorter = name.removesuffix(f"-{artifact.container}")
    return shorter if shorter != name and not shorter.endswith("/") else f"{name}-thinking"


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
    size = _SIZE.search(artifact.name)
    metadata: dict[str, Any] = {
        "domain": "llm",
        "architectures": [_architecture(artifact)],
        "compatibilityTypes": ["gguf" if is_gguf else "safetensors"],
        "paramsStrings": [size[0].upper()] if size else [],
        "minMemoryUsageBytes": memory(artifact),
        "contextLengths": [checkpoint.config.max_position_embeddings],
        "vision": bool(checkpoint.towers),
    }
    sampling = modelfile.settings(checkpoint).parameters
    fields = [
        {"key": "llm.prediction.temperature", "value": sampling.get("temperature")},
        {"key": "llm.prediction.topKSampling", "value": sampling.get("top_k")},
        {"key": "llm.prediction.topPSampling", "value": {"checked": True, "value": sampling.get("top_p")}},
    ]
    chat, switch = checkpoint.family.chat, has_switch(artifact)
    if chat is not None and switch:
        metadata |= {"reasoning": True, "trainedForToolUse": chat.tools}
    document: dict[str, Any] = {
        "model": model_name(artifact, name),
        "base": [{"key": name, "sources": [{"type": "huggingface", "user": publisher, "repo": repo}]}],
        "metadataOverrides": metadata,
    }
    if "temperature" in sampling:
        document["config"] = {"operation": {"fields": fields}}
    if chat is not None and switch:
        document["customFields"] = [_SWITCH | {"effects": [{"type": "setJinjaVariable", "variable": chat.thinking}]}]
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _architecture(artifact: Artifact) -> str:
    """The architecture as the container names it."""
    family = artifact.checkpoint.family
    if artifact.container == "gguf":
        return family.gguf.ARCHITECTURE
    return family.configs.MODEL_TYPE if artifact.checkpoint.towers else family.configs.TEXT_MODEL_TYPE


def memory(artifact: Artifact) -> int:
    """Bytes that LM Studio needs for the model at a context of 4096 tokens, with the towers and without a drafter."""
    from gemmaq import containers
    from gemmaq.vram import weights

    engine = vram.find(_ENGINES[artifact.container])
    checkpoint = replace(artifact.checkpoint, drafter=None)
    model = weights.builds(checkpoint, containers.writer(engine.container).FORMAT, None, None)[0].model
    context = min(_CONTEXT, checkpoint.config.max_position_embeddings)
    vision = bool(model.towers) and engine.supports_vision
    load = vram.Load(context, (engine.kv_default, engine.kv_default), vision=vision)
    return vram.estimate(engine, model, load).total
