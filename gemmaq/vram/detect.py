"""The cards of this machine, as their own tools report them; nothing found is an answer, not an error."""

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
    """NVIDIA cards by nvidia-smi (NVML), AMD cards by rocm-smi, a Mac by sysctl."""
    return _nvidia() + _amd() + _mac()


def _ask(*command: str) -> str:
    """What a tool prints; nothing if it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _nvidia() -> list[Card]:
    found = []
    for line in _ask("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits").splitlines():
        name, _, mib = line.rpartition(",")
        size = _count(mib) * _MIB
        if size:
            found.append(Card(name.strip().removeprefix("NVIDIA ").removeprefix("GeForce "), size, size))
    return found


def _amd() -> list[Card]:
    try:
        answer = json.loads(_ask("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json"))
    except (ValueError, RecursionError):
        return []
    found = []
    for values in answer.values() if isinstance(answer, dict) else ():
        size = _count(values.get("VRAM Total Memory (B)")) if isinstance(values, dict) else 0
        if size:
            name = values.get("Card Series") or values.get("Card series") or values.get("Device Name") or "AMD card"
            found.append(Card(str(name).removeprefix("AMD "), size, size))
    return found


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
    """A number of bytes as a tool prints it, 0 for anything else."""
    text = str(answer).strip()
    return int(text) if len(text) <= _MOST_DIGITS and text.isascii() and text.isdigit() else 0
