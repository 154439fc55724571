"""Chat of Gemma 4: the end of a turn, Google's sampling settings, Ollama's code for its turns, and the license."""

from __future__ import annotations

from gemmaq.models.config import TextConfig
from gemmaq.models.family import Chat, License, Turns


def turns(config: TextConfig) -> Turns:
    """Ollama's names of the code for a model's turns.

    The larger sizes, those without layer embeddings, begin an answer without thoughts with an empty thought. Ollama
    itself goes by the model's name or by its parameters, and takes a 12B of another name for a small one. It adds
    its code for Gemma 4 to every GGUF file of the architecture that comes without (server/create.go, August 2026).
    """
    size = "gemma4-small" if config.layer_embedding else "gemma4-large"
    return Turns(renderer=size, parser="gemma4", always=True)


CHAT = Chat(
    stop="<turn|>",
    sampling={"temperature": 1, "top_k": 64, "top_p": 0.95},  # as in the published generation_config.json
    templates=frozenset(),
    ollama=turns,
    projector_since="0.30.5",  # its llama.cpp, b9509, is the first without faults in both kinds of audio projectors
    thinking="enable_thinking",
    tools=True,
)

LICENSE = License(
    name="apache-2.0",
    link="https://www.apache.org/licenses/LICENSE-2.0",
    notice="Gemma 4 is licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0",
)
