"""The `params` file: how Ollama is to sample where it takes a GGUF model from the Hub (hf.co/org/name)."""

from __future__ import annotations

import json

from gemmaq.artifact import modelfile
from gemmaq.checkpoint import Checkpoint

NAME = "params"


def text(checkpoint: Checkpoint) -> bytes | None:
    """Its content, the parameters of the Modelfile; None if there is nothing to say.

    Raises:
        InputError: the model has no tokenizer.
    """
    parameters = dict(modelfile.settings(checkpoint).parameters)
    return (json.dumps(parameters, ensure_ascii=False) + "\n").encode() if parameters else None
