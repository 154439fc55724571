"""`gemmaq env`."""

from __future__ import annotations

import os
import platform
import re
import stat
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from gemmaq import __version__
from gemmaq.cli import console, system
from gemmaq.cli.console import Output
from gemmaq.cli.options import Json, cores, quiet_option
from gemmaq.models.samples import SAMPLE

_PACKAGES = (
    *("numpy", "numba", "llvmlite", "gguf", "huggingface_hub", "hf_xet", "httpx2", "pyyaml", "rich", "typer"),
    *("torch", "transformers", "jinja2", "matplotlib", SAMPLE.package),
)
"""Packages that gemmaq needs, then those of its extras."""
_FEATURES = (
    *("sse4_1", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
    *("amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
"""Features of a cpu, as Linux calls them, that change which code runs."""
_VARIABLES = re.compile(r"GEMMAQ_\w+|HF_HUB_OFFLINE|HF_HUB_DISABLE_XET|NUMBA_\w+|OMP_NUM_THREADS|CUDA_VISIBLE_DEVICES")
_PROGRAMS = ("llama-server", "llama-cli", "ollama", "lms", "vllm")
_MOST_FILES = 20_000
"""In a cache, beyond which it is not counted to the end."""


def env(*, as_json: Json = False, quiet: Annotated[bool, quiet_option("the version")] = False) -> None:
    """Show versions, machine and folders, for a bug report.

    It has no tokens and no names of users: a home folder is written ~.
    """
    found = gathered()
    Output("env", as_json, quiet).emit(lambda: found, essential=lambda: [__version__], show=lambda: _show(found))


def gathered() -> dict[str, Any]:
    """All that is shown, as the JSON object without its schema; sizes in bytes, None for what is not there."""
    from gemmaq.files import caches
    from gemmaq.vram import detect

    total, free = system.memory()
    return {
        "gemmaq": {"version": __version__, "folder": _private(Path(__file__).parents[1])},
        "python": {"version": platform.python_version(), "kind": platform.python_implementation()},
        "system": platform.platform(),
        "cpu": {"name": _cpu(), "features": _features(), "cores": os.cpu_count(), "usable_cores": cores()},
        "memory": {"total": total, "available": free},
        "gpus": [{"name": card.name, "bytes": card.bytes} for card in detect.cards()],
        "packages": {name: _version(name) for name in _PACKAGES},
        "runtimes": _runtimes(),
        "kernels": _kernels(),
        "caches": {"gemmaq": _folder(caches.folder("evaluate").parent), "hub": _folder(_hub_cache())},
        "token": _has_token(),
        "variables": {name: _private(value) for name, value in sorted(os.environ.items()) if _is_told(name)},
    }


def _is_told(name: str) -> bool:
    return _VARIABLES.fullmatch(name) is not None and "TOKEN" not in name


def _private(text: object) -> str:
    """A path or text with ~ for the home folder."""
    home = os.path.expanduser("~")
    return str(text).replace(home, "~") if home not in ("/", "~") else str(text)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    named = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", system.read("/proc/cpuinfo"), re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()


def _features() -> list[str]:
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", system.read("/proc/cpuinfo"), re.MULTILINE)
    there = set(listed[1].split()) if listed else set()
    return [name for name in _FEATURES if name in there]


def _runtimes() -> dict[str, str]:
    """Runtime -> its version where it is a package, else where its program lies; those that are found."""
    import shutil

    from gemmaq.verify.engines import ENGINES

    packages = {name: _version(engine.packages[0]) for name, engine in ENGINES.items() if engine.packages}
    found = {name: version for name, version in packages.items() if version}
    programs = {name: path for name in _PROGRAMS if name not in found and (path := shutil.which(name))}
    return found | {name: _private(path) for name, path in programs.items()}


def _kernels() -> dict[str, Any] | None:
    """Where machine code is kept, and how much of it there is; None if there is no such place.

    It came with the wheel, or numba keeps what it compiled.
    """
    from gemmaq.encodings import kernels
    from gemmaq.jit import native

    if native.opened() is not None:
        return _folder(native.FOLDER, "*.so")
    place = getattr(getattr(kernels.dequantize.made, "stats", None), "cache_path", None)
    return _folder(Path(place), "*.nb*") if place else None


def _hub_cache() -> Path:
    from gemmaq.hub import client

    return client.cache_folder("a/b").parent


def _has_token() -> bool:
    from gemmaq.hub.errors import has_token

    return has_token()


def _folder(path: Path, pattern: str = "*") -> dict[str, Any]:
    """A folder, and the bytes in it; `complete` is false if there are too many files to count."""
    size = count = 0
    for file in path.rglob(pattern) if path.is_dir() else ():
        try:
            status = file.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode):
            continue
        size += status.st_size
        count += 1
        if count >= _MOST_FILES:
            break
    return {"folder": _private(path), "bytes": size, "complete": count < _MOST_FILES}


def _show(found: Mapping[str, Any]) -> None:
    cpu, memory, python = found["cpu"], found["memory"], found["python"]
    packages = {name: version for name, version in found["packages"].items() if version}
    missing = [name for name, version in found["packages"].items() if not version]
    kernels = found["kernels"]
    rows = {
        "gemmaq": f"{found['gemmaq']['version']}, in {found['gemmaq']['folder']}",
        "Python": f"{python['version']} ({python['kind']})",
        "system": found["system"],
        "cpu": f"{cpu['name']}, {cpu['usable_cores']} of {cpu['cores']} cores",
        "features": " ".join(cpu["features"]) or "not known",
        "memory": _told_memory(memory["total"], memory["available"]),
        "GPUs": ", ".join(f"{card['name']} ({card['bytes'] / (1 << 30):.1f} GiB)" for card in found["gpus"]) or "none",
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "missing": ", ".join(missing) or "none",
        "runtimes": ", ".join(f"{name} {what}" for name, what in found["runtimes"].items()) or "none",
        "kernels": "compiled anew in each run" if kernels is None else _told_folder(kernels),
        "cache": _told_folder(found["caches"]["gemmaq"]),
        "Hub cache": _told_folder(found["caches"]["hub"]),
        "Hub token": "set" if found["token"] else "none",
        "variables": ", ".join(f"{name}={value}" for name, value in found["variables"].items()) or "none",
    }
    console.fields(rows)


def _told_memory(total: int | None, free: int | None) -> str:
    if total is None:
        return "not known"
    return console.size(total) + (f", {console.size(free)} available" if free is not None else "")


def _told_folder(folder: Mapping[str, Any]) -> str:
    more = "" if folder["complete"] else "more than "
    return f"{folder['folder']}, {more}{console.size(folder['bytes'])}"
