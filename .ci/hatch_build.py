"""The build of a wheel: it compiles the loops that gemmaq/jit/kernels.txt lists, where a C compiler can link them.

Without one, or on another system than Linux on x86-64, the wheel has no machine code: numba compiles each loop on the
user's machine when it is first needed.
"""

from __future__ import annotations

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
        if self.target_name != "wheel" or version == "editable" or os.environ.get("GEMMAQ_BUILD_KERNELS") == "0":
            return
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            return
        sys.path.insert(0, self.root)
        from gemmaq.jit import native

        folder = Path(self.directory)
        folder.mkdir(parents=True, exist_ok=True)
        libraries = {level: folder / native.library(level).name for level in native.LEVELS}
        script = Path(self.root, ".ci", "kernels.py")
        running = {
            level: subprocess.Popen([sys.executable, script, level, library], stderr=subprocess.PIPE, text=True)
            for level, library in libraries.items()
        }
        for level, process in running.items():
            _, words = process.communicate()
            if process.returncode:
                self.app.display_warning(f"compiled loops for {level} are left out of the wheel:\n{words[-2000:]}")
                continue
            build_data["force_include"][str(libraries[level])] = f"gemmaq/jit/{libraries[level].name}"
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-linux_x86_64"
