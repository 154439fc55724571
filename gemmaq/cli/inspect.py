"""`gemmaq inspect`."""

from __future__ import annotations

from typing import Annotated

import typer


def inspect(
    source: Annotated[str, typer.Argument(help="A folder with config.json, a .gguf file, or sample:gemma-3-270m.")],
) -> None:
    """Say what a model file or folder is."""
