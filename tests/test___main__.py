"""The program itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_program_itself(tmp_path: Path) -> None:
    """Interrupted in the first of its own imports."""
    (tmp_path / "typer.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    code = "import sys\nsys.path.insert(0, sys.argv[1])\nfrom gemmaq.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode == 130
