"""GGUF files of Gemma 4 by llama.cpp's own converter."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from oracles import reference_converter

Job = tuple[Path | str, ...]
"""Folder, type, target file, and options of the converter such as `--mmproj`."""


def need_converter(require: Callable[[bool, str], None]) -> None:
    """Skip a test, or fail it under --require-oracles, where the converter is missing."""
    require(reference_converter() is not None, "the reference converter ($GEMMAQ_REFERENCE_CONVERTER)")


def convert_gemma4(jobs: Iterable[Job]) -> None:
    """Convert folders, all of them in one process, as it takes three seconds to start."""
    converter = reference_converter()
    assert converter is not None
    listed = json.dumps([list(map(str, job)) for job in jobs])
    command = [converter.parent / "python", Path(__file__).with_name("reference_gemma4.py"), listed]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
