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

FILE = "Modelfile"
LICENSE = "Gemma is provided under and subject to the Gemma Terms of Use found at https://ai.google.dev/gemma/terms"
STOP = "<end_of_turn>"

SAMPLING = {"temperature": 1, "top_k": 64, "top_p": 0.95}
"""Google's values, those of generation_config.json."""

STOCK = frozenset(
    (
        "7de1c58e208eda46e9c7f86397df37ec49883aeece39fb961e0a6b24088dd3c4",
        "5437d0ad30bb8db69f45cd62c6e02d4269ee617ec9637c9650f8f04051bd9dbc",
    )
)
"""SHA-256 of Gemma 3's own chat templates; the second is that of the first release of 1B."""

TURNS = """{{- $system := .System }}
{{- range $at, $message := .Messages }}
{{- $open := eq (len (slice $.Messages $at)) 1 }}
{{- if eq $message.Role "user" }}<start_of_turn>user
{{ if $system }}{{ $system }}

{{ $system = "" }}{{ end }}{{ $message.Content }}<end_of_turn>
{{ if $open }}<start_of_turn>model
{{ end }}
{{- else if eq $message.Role "assistant" }}<start_of_turn>model
{{ $message.Content }}{{ if not $open }}<end_of_turn>
{{ end }}
{{- end }}
{{- end }}"""
"""Gemma 3's turns in Go's template language.

The system text goes before the first user turn there is; an answer at the end is left open, to be continued.
"""

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
    """

    template: str | None
    parameters: Mapping[str, Any]
    requires: str | None


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
    template = None if is_foreign(jinja) else TURNS if chats else PROMPT
    parameters: dict[str, Any] = {"stop": [STOP]} if chats and STOP in (template or jinja or "") else {}
    parameters |= SAMPLING if chats else {}
    said = {name: checkpoint.generation[name] for name in (*SAMPLING, "min_p") if name in checkpoint.generation}
    parameters |= {name: _plain(value) for name, value in said.items() if _is_number(value)}
    requires = _PROJECTOR if projector else _LLAMA_SERVER if shards > 1 or template is None else None
    return Settings(template, parameters, requires)


def is_foreign(jinja: str | None) -> bool:
    """Whether a chat template is another than Gemma 3's own; none is not."""
    return bool(jinja) and hashlib.sha256((jinja or "").encode()).hexdigest() not in STOCK


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
    lines.append(f'LICENSE """{LICENSE}"""')
    return "\n".join(lines) + "\n"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: float) -> float:
    """Whole numbers without a point, which Ollama wants of top_k."""
    return int(value) if value == int(value) else value
