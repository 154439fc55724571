"""Settings for Ollama; tests/runtimes has what they mean to it, by its own rules."""

from __future__ import annotations

import json
from pathlib import Path

from gemmaq.artifact import modelfile
from gemmaq.files.names import Parts
from gemmaq.sources.open import open_source
from kinds import folders


def test_params_are_those_of_the_modelfile(made: dict[str, Path]) -> None:
    for kind in ("gguf", "mmproj"):
        (folder,) = folders(made[kind])
        checkpoint = open_source(str(folder))
        content = modelfile.params(checkpoint)
        stored = folder / modelfile.PARAMS_FILE
        assert content == (stored.read_bytes() if stored.exists() else None)
        assert json.loads(content or b"{}") == modelfile.settings(checkpoint).parameters


def test_versions_that_a_model_needs(made: dict[str, Path]) -> None:
    (folder,) = folders(made["gguf"])
    checkpoint = open_source(str(folder))
    shapes = (Parts(("a",)), Parts(("a", "b")), Parts(("a",), "mmproj"), Parts(("a", "b"), "mmproj", "mtp"))
    needs = [modelfile.settings(checkpoint, files).requires for files in shapes]
    assert needs == [None, "0.30.0", "0.30.4", "0.30.9"]
