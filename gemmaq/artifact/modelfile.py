"""Settings that Ollama runs a GGUF model with: as a Modelfile, as a `params` file, and as fields of a request.

The chat template (Ollama's source, version 0.33 of August 2026):

* Without TEMPLATE, Ollama compares the file's own chat template with those it knows, and takes the nearest one at an
  edit distance below 100. Only a template that it does not know is run by llama-server's Jinja. A family's published
  template is known, but the one taken for it drops the system text once the first turns of a long conversation are cut
  off. So a model with its family's own template, or a chat model with none, gets a Go template of the same turns.
* A family whose turns Ollama has code for (RENDERER, PARSER) gets that: no template, and no stop text. Where Ollama
  adds this code to every file of the architecture, it is always named, or Ollama would guess which kind of it fits.
* A chat template of another kind (with tools, say) is left alone: Jinja runs it, from version 0.30.0 on.
* A pretrained model does not chat: its template is the prompt alone, without stop text and sampling.

Sampling is always written: Ollama's own default for such a model is temperature 0.1. How many tokens a drafter
(DRAFT) proposes at a time is left to Ollama, which takes 4.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gemmaq.checkpoint import Checkpoint
from gemmaq.files import quoting
from gemmaq.files.names import Parts
from gemmaq.models.family import Chat, Turns

FILE = "Modelfile"
PARAMS_FILE = "params"

PROMPT = "{{ .Prompt }}"
"""Template of a model that completes text."""

_LLAMA_SERVER = "0.30.0"
"""First version of Ollama that runs models in llama-server: their own Jinja templates, shards, every family."""

_DRAFTER = "0.30.9"
"""First version of Ollama whose llama.cpp (b9626) runs drafters of every size: they came with b9549 and b9568."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a model in Ollama.

    Attributes:
        turns: Chat template, or names of Ollama's code for the turns; empty to use the file's own template.
        parameters: Name -> number, or list of strings.
        requires: Oldest version of Ollama that runs the model, None for any.
        license: Sentence about the license of the model.
        remark: Sentence about what Ollama does with the model in spite of its template, None for nothing.
    """

    turns: Turns
    parameters: Mapping[str, Any]
    requires: str | None
    license: str
    remark: str | None = None


_NO_PARTS = Parts(())


def settings(checkpoint: Checkpoint, files: Parts = _NO_PARTS) -> Settings:
    """The settings of a model.

    Args:
        checkpoint: The model; its tokenizer is read.
        files: Its weight files.

    Raises:
        InputError: It has no tokenizer.
    """
    chat, license = checkpoint.family.chat, checkpoint.family.license.notice
    if chat is None:
        return Settings(Turns(), {}, _LLAMA_SERVER if len(files.model) > 1 else None, license)
    jinja = checkpoint.tokenizer.chat_template
    is_chat = bool(jinja) or "it" in checkpoint.name.lower().replace("_", "-").split("-")
    is_other = is_foreign(jinja, chat)
    turns, remark = chat.ollama(checkpoint.config), None
    if turns.always and (is_other or not is_chat):
        title = checkpoint.family.title
        remark = f"Ollama writes the turns of {title} for this model, too; ask it with raw: true to do without"
    elif is_other:
        turns = Turns()
    elif not is_chat:
        turns = Turns(template=PROMPT)
    stops = is_chat and turns.renderer is None and chat.stop in (turns.template or jinja or "")
    parameters: dict[str, Any] = {"stop": [chat.stop]} if stops else {}
    parameters |= chat.sampling if is_chat else {}
    generation = checkpoint.generation
    for name in (*chat.sampling, "min_p"):
        if _is_number(generation.get(name)):
            parameters[name] = _plain(generation[name])
    requires = max(_versions(files, turns, chat), key=_by_number, default=None)
    return Settings(turns, parameters, requires, license, remark)


def _versions(files: Parts, turns: Turns, chat: Chat) -> Iterator[str]:
    """Versions of Ollama that are the first to do what a model needs."""
    if turns.template is None or len(files.model) > 1:
        yield _LLAMA_SERVER
    if files.projector is not None:
        yield chat.projector_since
    if files.drafter is not None:
        yield _DRAFTER


def _by_number(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def is_foreign(jinja: str | None, chat: Chat) -> bool:
    """Whether the model has a chat template that its family was not published with."""
    if not jinja:
        return False
    if not chat.templates:
        return chat.stop not in jinja
    return hashlib.sha256(jinja.encode()).hexdigest() not in chat.templates


def text(checkpoint: Checkpoint, files: Parts) -> str:
    """Content of the Modelfile of a GGUF artifact; it names the files of its own folder.

    Args:
        checkpoint: The model; its tokenizer is read.
        files: Names of its weight files; Ollama needs every shard of a split one.

    Raises:
        InputError: It has no tokenizer.
    """
    chosen = settings(checkpoint, files)
    lines = [f"# {chosen.remark}"] if chosen.remark is not None else []
    lines += [f"FROM {quoting.modelfile(f'./{name}')}" for name in (*files.model, files.projector) if name is not None]
    if files.drafter is not None:
        lines.append(f"DRAFT {quoting.modelfile(f'./{files.drafter}')}")
    if chosen.turns.template is not None:
        lines.append(f"TEMPLATE {quoting.modelfile(chosen.turns.template, several=True)}")
    for command, name in (("RENDERER", chosen.turns.renderer), ("PARSER", chosen.turns.parser)):
        if name is not None:
            lines.append(f"{command} {name}")
    for name, value in chosen.parameters.items():
        values = value if isinstance(value, list) else [value]
        lines += [f"PARAMETER {name} {json.dumps(one, ensure_ascii=False)}" for one in values]
    if chosen.requires is not None:
        lines.append(f"REQUIRES {chosen.requires}")
    lines.append(f"LICENSE {quoting.modelfile(chosen.license, several=True)}")
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
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e38


def _plain(value: float) -> float:
    """A whole number without a point, which Ollama demands of top_k."""
    return int(value) if value == int(value) else value
