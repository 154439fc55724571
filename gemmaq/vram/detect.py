"""Cards of this machine, as their own tools report them; to find none is an answer, not an error."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

from gemmaq.vram.cards import Card, apple

_MIB = 1 << 20
_SECONDS = 10
_MOST_DIGITS = 18


def cards() -> list[Card]:
    """NVIDIA cards from nvidia-smi, AMD cards from rocm-smi, a Mac from sysctl."""
    return _nvidia() + _amd() + _mac()


def _ask(*command: str) -> str:
    """Output of a tool, empty if it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return process.stdout if process.returncode == 0 else ""


def _nvidia() -> list[Card]:
    result = []
    for line in _ask("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits").splitlines():
        name, _, mib = line.rpartition(",")
        size = _count(mib) * _MIB
        if size:
            result.append(Card(name.strip().removeprefix("NVIDIA ").removeprefix("GeForce "), size, size))
    return result


def _amd() -> list[Card]:
    try:
        answer = json.loads(_ask("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json"))
    except (ValueError, RecursionError):
        return []
    result = []
    for values in answer.values() if isinstance(answer, dict) else ():
        size = _count(values.get("VRAM Total Memory (B)")) if isinstance(values, dict) else 0
        if size:
            name = values.get("Card Series") or values.get("Card series") or values.get("Device Name") or "AMD card"
            result.append(Card(str(name).removeprefix("AMD "), size, size))
    return result


def _mac(platform: str = sys.platform) -> list[Card]:
    if platform != "darwin":
        return []
    chip, memory, wired = (_sysctl(key) for key in ("machdep.cpu.brand_string", "hw.memsize", "iogpu.wired_limit_mb"))
    if not _count(memory):
        return []
    return [apple(chip or "Mac", _count(memory), _count(wired) * _MIB)]


def _sysctl(key: str) -> str:
    return _ask("sysctl", "-n", key).strip()


def _count(answer: Any) -> int:
    """Number that a tool printed, 0 for anything else."""
    text = str(answer).strip()
    return int(text) if len(text) <= _MOST_DIGITS and text.isascii() and text.isdigit() else 0
