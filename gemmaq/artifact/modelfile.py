"""How Ollama is to run a GGUF model: its Modelfile, and the same as fields of a request.

Which template, and why (Ollama's source, August 2026):

* Without TEMPLATE, Ollama compares the file's own chat template with those it knows and takes its nearest one at an
  edit distance below 100; only a template it does not know is left to llama-server's Jinja. Gemma 3's own is known, but
  what is taken for it drops the system text once the first turns of a long conversation are cut off. So a model with
  Gemma 3's own template, or a chat model with none, gets a Go template that says what Gemma 3's says.
* A chat template of another kind (tools, say) is left alone: Jinja runs it, from version 0.30.0 on.
* A pretrained model is not told to chat: its template is the prompt and nothing else, no stop, no sampling of ours.

Sampling is always written: what Ollama takes for Gemma 3 by itself is temperature 0.1.
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

PROMPT = "{{ .Prompt }}"
"""The template of a model that completes text."""

_PROJECTOR = "0.30.4"
"""The first version that recognises an mmproj file beside the model reliably."""

_LLAMA_SERVER = "0.30.0"
"""The first version that runs a file's own Jinja template, and merges the shards of a split file."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How Ollama is to run a model.

    Attributes:
        template: in Go's template language, None where the file's own is to be used.
        parameters: name -> number or list of strings.
        requires: the least version of Ollama, None for any.
        license: Sentence about the license of the model.
    """

    template: str | None
    parameters: Mapping[str, Any]
    requires: str | None
    license: str


def settings(checkpoint: Checkpoint, shards: int = 1, projector: bool = False) -> Settings:
    """The settings of a model.

    Args:
        checkpoint: the model; its tokenizer is read.
        shards: files that its weights are in.
        projector: whether an mmproj file belongs to it.

    Raises:
        InputError: it has no tokenizer.
    """
    jinja = checkpoint.tokenizer.chat_template
    chats = bool(jinja) or "it" in checkpoint.name.lower().replace("_", "-").split("-")
    chat = checkpoint.family.chat
    template = None if is_foreign(jinja, chat) else chat.go_template if chats else PROMPT
    parameters: dict[str, Any] = {"stop": [chat.stop]} if chats and chat.stop in (template or jinja or "") else {}
    parameters |= chat.sampling if chats else {}
    said = {name: checkpoint.generation[name] for name in (*chat.sampling, "min_p") if name in checkpoint.generation}
    parameters |= {name: _plain(value) for name, value in said.items() if _is_number(value)}
    requires = _PROJECTOR if projector else _LLAMA_SERVER if shards > 1 or template is None else None
    return Settings(template, parameters, requires, checkpoint.family.license.notice)


def is_foreign(jinja: str | None, chat: Chat) -> bool:
    """Whether a chat template is none of those that the family was published with; a missing one is not."""
    return bool(jinja) and hashlib.sha256((jinja or "").encode()).hexdigest() not in chat.templates


def text(checkpoint: Checkpoint, weights: Sequence[str], projector: str | None = None) -> str:
    """The Modelfile of a GGUF artifact, to lie beside its files.

    Args:
        checkpoint: the model; its tokenizer is read.
        weights: names of its files; Ollama wants every shard of a split one.
        projector: name of its mmproj file.

    Raises:
        InputError: it has no tokenizer.
    """
    wanted = settings(checkpoint, len(weights), projector is not None)
    lines = [f"FROM ./{name}" for name in (*weights, *((projector,) if projector else ()))]
    if wanted.template is not None:
        lines.append(f'TEMPLATE """{wanted.template}"""')
    for name, value in wanted.parameters.items():
        values = value if isinstance(value, list) else [value]
        lines += [f"PARAMETER {name} {json.dumps(one, ensure_ascii=False)}" for one in values]
    if wanted.requires is not None:
        lines.append(f"REQUIRES {wanted.requires}")
    lines.append(f'LICENSE """{checkpoint.family.license.notice}"""')
    return "\n".join(lines) + "\n"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: float) -> float:
    """Whole numbers without a point, which Ollama wants of top_k."""
    return int(value) if value == int(value) else value
