"""The build of a wheel: it compiles the loops that gemmaq/jit/kernels.txt lists, where a C compiler can link them.

It has those for this machine's processor, with GEMMAQ_BUILD_KERNELS=all for every level of processors, as a wheel to
publish should have. Without a C compiler, on another system than Linux on x86-64, or with GEMMAQ_BUILD_KERNELS=none,
the wheel has no machine code: numba compiles each loop on the user's machine when it is first needed.
"""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds libraries of compiled loops to a wheel, which then is one for this system, and for every Python."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the library before the files are packed."""
        wanted = os.environ.get("GEMMAQ_BUILD_KERNELS", "here")
        if self.target_name != "wheel" or version == "editable" or wanted == "none":
            return
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            return
        sys.path.insert(0, self.root)
        from gemmaq.jit import native

        levels = native.LEVELS if wanted == "all" else [native.here()]
        folder, made = Path(self.directory), []
        folder.mkdir(parents=True, exist_ok=True)
        for level in filter(None, levels):
            library = folder / native.library(level).name
            script = Path(self.root, ".ci", "kernels.py")
            done = subprocess.run([sys.executable, script, level, library], stderr=subprocess.PIPE, text=True)
            if done.returncode:
                self.app.display_warning(
                    f"compiled loops for {level} are left out of the wheel:\n{done.stderr[-2000:]}"
                )
                continue
            build_data["force_include"][str(library)] = f"gemmaq/jit/{library.name}"
            made.append(library)
        if made:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{self._system(made)}"
            if wanted == "all" and "manylinux_2_17_" not in build_data["tag"]:
                self.app.abort(f"the loops need more than a wheel to publish should: {build_data['tag']}")

    def _system(self, libraries: list[Path]) -> str:
        sys.path.insert(0, str(Path(self.root, ".ci")))
        return str(importlib.import_module("kernels").system([library.read_bytes() for library in libraries]))
