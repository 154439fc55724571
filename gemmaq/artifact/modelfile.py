"""Settings that Ollama runs a GGUF model with: as a Modelfile, as a `params` file, and as fields of a request.

The chat template (Ollama's source, August 2026):

* Without TEMPLATE, Ollama compares the file's own chat template with those it knows, and takes the nearest one at an
  edit distance below 100. Only a template that it does not know is run by llama-server's Jinja. A family's published
  template is known, but the one taken for it drops the system text once the first turns of a long conversation are cut
  off. So a model with its family's own template, or a chat model with none, gets a Go template of the same turns.
* A chat template of another kind (with tools, say) is left alone: Jinja runs it, from version 0.30.0 on.
* A pretrained model does not chat: its template is the prompt alone, without stop text and sampling.

Sampling is always written: Ollama's own default for such a model is temperature 0.1.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.models.family import Chat

FILE = "Modelfile"
PARAMS_FILE = "params"

PROMPT = "{{ .Prompt }}"
"""Template of a model that completes text."""

_PROJECTOR = "0.30.4"
"""First version of Ollama that reliably recognises an mmproj file of a model."""

_LLAMA_SERVER = "0.30.0"
"""First version of Ollama that runs a file's own Jinja template, and that merges shards."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a model in Ollama.

    Attributes:
        template: Chat template in Go's template language, None to use the file's own.
        parameters: Name -> number, or list of strings.
        requires: Oldest version of Ollama that runs the model, None for any.
        license: Sentence about the license of the model.
    """

    template: str | None
    parameters: Mapping[str, Any]
    requires: str | None
    license: str


def settings(checkpoint: Checkpoint, shards: int = 1, projector: bool = False) -> Settings:
    """The settings of a model.

    Args:
        checkpoint: The model; its tokenizer is read.
        shards: Number of its weight files.
        projector: Whether it has an mmproj file.

    Raises:
        InputError: It has no tokenizer.
    """
    jinja = checkpoint.tokenizer.chat_template
    is_chat = bool(jinja) or "it" in checkpoint.name.lower().replace("_", "-").split("-")
    chat = checkpoint.family.chat
    template = None if is_foreign(jinja, chat) else chat.go_template if is_chat else PROMPT
    parameters: dict[str, Any] = {"stop": [chat.stop]} if is_chat and chat.stop in (template or jinja or "") else {}
    parameters |= chat.sampling if is_chat else {}
    generation = checkpoint.generation
    for name in (*chat.sampling, "min_p"):
        if _is_number(generation.get(name)):
            parameters[name] = _plain(generation[name])
    requires = _PROJECTOR if projector else _LLAMA_SERVER if shards > 1 or template is None else None
    return Settings(template, parameters, requires, checkpoint.family.license.notice)


def is_foreign(jinja: str | None, chat: Chat) -> bool:
    """Whether the model has a chat template that its family was not published with."""
    return bool(jinja) and hashlib.sha256((jinja or "").encode()).hexdigest() not in chat.templates


def text(checkpoint: Checkpoint, weights: Sequence[str], projector: str | None = None) -> str:
    """Content of the Modelfile of a GGUF artifact; it names the files of its own folder.

    Args:
        checkpoint: The model; its tokenizer is read.
        weights: Names of its weight files; Ollama needs every shard of a split one.
        projector: Name of its mmproj file.

    Raises:
        InputError: It has no tokenizer.
    """
    chosen = settings(checkpoint, len(weights), projector is not None)
    lines = [f"FROM ./{name}" for name in (*weights, *((projector,) if projector else ()))]
    if chosen.template is not None:
        lines.append(f'TEMPLATE """{chosen.template}"""')
    for name, value in chosen.parameters.items():
        values = value if isinstance(value, list) else [value]
        lines += [f"PARAMETER {name} {json.dumps(one, ensure_ascii=False)}" for one in values]
    if chosen.requires is not None:
        lines.append(f"REQUIRES {chosen.requires}")
    lines.append(f'LICENSE """{chosen.license}"""')
    return "\n".join(lines) + "\n"


def params(checkpoint: Checkpoint) -> bytes | None:
    """Content of the `params` file, which Ollama reads where it takes a GGUF model from the Hub (hf.co/org/name).

    Returns:
        The parameters of the Modelfile as JSON, None if there are none.

    Raises:
        InputError: The model has no tokenizer.
    """
    parameters = dict(settings(checkpoint).parameters)
    return (json.dumps(parameters, ensure_ascii=False) + "\n").encode() if parameters else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: float) -> float:
    """A whole number without a point, which Ollama demands of top_k."""
    return int(value) if value == int(value) else value
