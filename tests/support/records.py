"""What gemmaq.json says of the only model of an artifact, and other words in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def recorded(folder: Path) -> dict[str, Any]:
    """The entry of the only model."""
    (entry,) = json.loads((folder / "gemmaq.json").read_text())["models"]
    return dict(entry)


def edit_record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the entry of the only model in place."""
    path = folder / "gemmaq.json"
    document = json.loads(path.read_text())
    change(document["models"][0])
    path.write_text(json.dumps(document))
